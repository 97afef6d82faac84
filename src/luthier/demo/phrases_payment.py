"""What customers write about money: payments, invoices, discounts and the cost of delivery."""

from luthier.demo.phrases import (
    GIVE_ORDER,
    Clarification,
    FollowUp,
    Intent,
    Variants,
    lines,
    paragraph,
    paragraphs,
)

PAYMENT_FAILED = Intent(
    name="payment_failed",
    questions=Variants(
        train=lines("""
            My payment for the {product} failed.
            I tried to buy the {product}, but my card was declined.
            I cannot pay for the {product}, the page shows an error.
            Why was my card refused when I tried to buy the {product}?
            The payment for {a_product} does not go through.
            I want to order {a_product}, but the payment fails every time.
            Checkout says payment failed for the {product}. What can I do?
            The page does not let me pay for the {product}.
            My card was declined.
            The payment did not go through.
            I get an error when I try to pay.
            Why does my payment fail?
            Your shop does not accept my card.
            I cannot finish my order because the payment fails.
            My bank card is rejected each time I try to buy the {product}.
            I have a problem with paying for the {product}.
            I wanted to buy {a_product}, but I could not pay.
            Something goes wrong with the payment for the {product}.
            The checkout stops with an error when I enter my card details.
            I tried to pay three times and it failed.
            Paying with my credit card does not work.
            There is a problem with my payment.
        """),
        held_out=lines("""
            The checkout rejects my card whenever I try to pay for the {product}.
            I have an error with the payment for the {product}, what is wrong?
            I could not buy the {product}, because paying did not work.
            My bank card was refused at the checkout.
            Each payment I try ends with an error.
        """),
    ),
    answers=paragraphs("""
        I am sorry that the payment did not work. Nothing has been charged. Please check your card
        details and try again, or choose bank transfer at checkout. Your basket is saved for one
        day.

        I am sorry that the payment for the {product} did not work. Nothing has been charged. Please
        check your card details and try again, or choose bank transfer at checkout. Your basket is
        saved for one day.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Which other ways to pay do you have?
                    How else can I pay?
                    Can I pay when it arrives?
                    Do you take gift cards?
                    What kinds of payment do you accept?
                """),
                held_out=lines("""
                    Is there some other method of paying?
                    What else could I pay with?
                """),
            ),
            answer=paragraph("""
                You can pay by credit card, debit card, bank transfer or with a Fern & Oak gift
                card. We do not offer payment on delivery.
            """),
        ),
    ),
)

INVOICE_REQUEST = Intent(
    name="invoice_request",
    questions=Variants(
        train=lines("""
            I need an invoice for order {order}.
            Please send me the invoice for order {order}.
            Can I get a receipt for order {order}?
            Where can I find the invoice of order {order}?
            There was no invoice in the parcel of order {order}.
            My company needs an invoice for order {order}.
            Could you email me the bill for order {order}?
            How do I get a copy of the invoice for order {order}?
            I lost the invoice of order {order}, can you send it again?
            Please send me an invoice for order {order} from {date}.
            I placed order {order} on {date} and never got an invoice.
            I need a receipt for my purchase of {date}, order number {order}.
            Can you send the invoice for order {order}, placed on {date}?
            For my taxes I need the invoice of {date}, order {order}.
            I never got a bill for order {order}.
            Could you write me an invoice for my purchase {order}?
            My accountant needs the receipt of order {order}.
            I cannot find the bill for order {order}, please mail it to me.
            Do you have a PDF of the invoice for order {order}?
            On {date} I bought something with order number {order}. May I have the invoice?
            Please email me the receipt for order {order} of {date}.
            I still need the bill for order {order} from {date}.
        """),
        held_out=lines("""
            My accountant asks for an invoice for purchase {order}, can I get one?
            I have not received any bill for order {order}.
            Would you please mail me a copy of the receipt for order {order}?
            On {date} I placed order {order}, and now I need the invoice for it.
            Kindly send the bill dated {date} for order {order}.
        """),
    ),
    answers=paragraphs("""
        Of course. I have sent the invoice for order {order} as a PDF to the email address of your
        order. You can also find all invoices in your account under My orders.

        Of course. I have sent the invoice for order {order} from {date} as a PDF to the email
        address of your order. You can also find all invoices in your account under My orders.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Can you put my company name on it?
                    Could the invoice show my company address?
                    Can I change the name on the invoice?
                    It must have my tax number on it. Is that possible?
                    Is it possible to add our company details?
                """),
                held_out=lines("""
                    May it carry the name of my firm?
                    Would you write our business address on the bill?
                """),
            ),
            answer=paragraph("""
                Yes, that is possible. Please reply with the exact name, address and tax number, and
                we will send you a new invoice within one working day.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                I need an invoice.
                Can you send me an invoice for my order?
                Where can I find my invoice?
                There was no invoice in my parcel.
                Could you email me a receipt?
            """),
            held_out=lines("""
                I have not received any invoice.
                Would you mail me a copy of my invoice?
            """),
        ),
        ask=paragraph("""
            I will gladly send you an invoice. Could you please tell me your order number, so that I
            pick the right one?
        """),
        give=GIVE_ORDER,
    ),
)

DISCOUNT_CODE = Intent(
    name="discount_code",
    questions=Variants(
        train=lines("""
            My discount code {code} does not work.
            How do I use the code {code}?
            Where do I enter the discount code {code}?
            I have a voucher with the code {code}. How can I use it?
            The code {code} is not accepted at checkout.
            Why is my code {code} not valid?
            At which step do I enter the code {code}?
            Your newsletter gave me the code {code}, but it shows an error.
            I do not know what to do with the code {code}.
            Can I use the code {code} for the {product}?
            The code {code} does not work for the {product}.
            I want to buy {a_product} with my discount code {code}.
            Does the discount {code} count for the {product} too?
            I put the {product} in my basket, but the code {code} changes nothing.
            My voucher {code} is refused by the checkout.
            What do I have to do to get the discount with {code}?
            I typed in the code {code}, but the price did not change.
            The website says that {code} is not a valid code.
            Please tell me how to redeem the voucher {code}.
            Will I get a discount on the {product} with the code {code}?
            The {product} is not cheaper with my voucher {code}.
            Please help me to use the voucher {code} for the {product}.
        """),
        held_out=lines("""
            The checkout says my voucher {code} is not valid.
            How can I get my discount with {code}?
            I entered the code {code} and the price is still the same.
            Will the voucher {code} make the {product} cheaper?
            I would love to buy the {product} with a discount, but the code {code} fails.
        """),
    ),
    answers=paragraphs("""
        Please type the code {code} into the discount field at checkout, in capital letters and
        without spaces. Each code works once and does not count for sale items or gift cards.

        Please put the {product} in your basket and type the code {code} into the discount field at
        checkout, in capital letters and without spaces. Each code works once and does not count for
        sale items or gift cards.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Can I use two codes at once?
                    Can I add a second code?
                    Is it possible to combine codes?
                    I have another code. Can I use both?
                    How many codes can I use for one order?
                """),
                held_out=lines("""
                    May two vouchers go together?
                    And if I own one more voucher?
                """),
            ),
            answer=paragraph("""
                I am afraid you can only use one code for each order. You are welcome to keep the
                other code for your next order.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                My discount code does not work.
                How do I use a discount code?
                My voucher is not accepted.
                Where do I enter my discount code?
                The discount is not taken off the price.
            """),
            held_out=lines("""
                My voucher is not valid.
                I entered my code and the price is the same.
            """),
        ),
        ask=paragraph("""
            I can help you with your discount. Could you please tell me which code you would like to
            use?
        """),
        give=Variants(
            train=lines("""
                It is {code}.
                The code is {code}.
                My code says {code}.
                I have the code {code}.
                {code}
                Sure, {code}.
            """),
            held_out=lines("""
                On the card it says {code}.
                That would be {code}.
            """),
        ),
    ),
)

DELIVERY_COST = Intent(
    name="delivery_cost",
    questions=Variants(
        train=lines("""
            How much is delivery?
            What does delivery cost?
            Is delivery free?
            How much do I pay for shipping?
            From what amount is delivery free?
            Do you charge for delivery?
            What are your delivery charges?
            How much is delivery to {country}?
            Do you deliver to {country}?
            What does shipping to {country} cost?
            Can you send a parcel to {country}, and how much is it?
            I live in {country}. What would I pay for delivery?
            Is delivery to {country} free?
            My sister lives in {country}. How much does it cost to send her a parcel?
            What is the price of delivery?
            Do I have to pay extra for shipping?
            How much do I need to spend to get free delivery?
            Tell me about your shipping fees.
            What would it cost to send a parcel?
            What are the shipping fees for {country}?
            I want to order something to {country}. What is the delivery charge?
            How much would a parcel to {country} cost?
            Can I order from {country}, and what does delivery cost?
        """),
        held_out=lines("""
            How much must I spend until shipping is free?
            What is the price for sending me a parcel?
            Do I pay extra for having things delivered?
            How expensive is it to have a parcel shipped to {country}?
            I want to order from {country}, how much are the shipping fees?
        """),
    ),
    answers=paragraphs("""
        Delivery costs 5 dollars and is free for orders of 60 dollars or more. Your parcel arrives
        three to five working days after it has left our warehouse.

        We gladly deliver to {country}. Delivery costs 15 dollars and is free for orders of 150
        dollars or more. Your parcel arrives six to nine working days after it has left our
        warehouse.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Is there a faster delivery?
                    Do you offer express delivery?
                    Can I get it sooner?
                    What if I need it quickly?
                    How much is express delivery?
                """),
                held_out=lines("""
                    I am in a hurry, is there a quicker way?
                    Could it be here faster for an extra charge?
                """),
            ),
            answer=paragraph("""
                We offer express delivery for 10 dollars extra. Orders placed before noon leave
                our warehouse on the same day.
            """),
        ),
    ),
)

INTENTS = (PAYMENT_FAILED, INVOICE_REQUEST, DISCOUNT_CODE, DELIVERY_COST)
