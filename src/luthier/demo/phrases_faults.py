"""What customers write about a product that is not whole, or no longer."""

from luthier.demo.phrases import (
    Clarification,
    FollowUp,
    Intent,
    Variants,
    lines,
    paragraph,
    paragraphs,
)

GIVE_PRODUCT_AND_ORDER = Variants(
    train=lines("""
        It is the {product} from order {order}.
        The {product}, order number {order}.
        Order {order}, the {product}.
        I mean the {product}. The order number is {order}.
        My order is {order} and it is about the {product}.
    """),
    held_out=lines("""
        I am talking about the {product} that came as number {order}.
        Number {order}, and the {product} is the one.
    """),
)

DAMAGED_ITEM = Intent(
    name="damaged_item",
    questions=Variants(
        train=lines("""
            The {product} arrived broken.
            My {product} is damaged.
            The {product} you sent me is in bad shape.
            I unpacked the {product} and it is broken.
            There are scratches all over the {product}.
            The {product} was broken when I opened the parcel.
            I got a damaged {product}. What can I do?
            The box was crushed and the {product} inside is broken.
            The {product} in order {order} arrived broken.
            Order {order} came with a damaged {product}.
            I received order {order} today and the {product} is broken.
            The {product} from order {order} has a big scratch.
            My order {order} has arrived, but the {product} is damaged.
            In order {order} the {product} was broken.
            The {product} must have been damaged on the way.
            There is damage on my new {product}.
            I opened the box and found the {product} in pieces.
            The {product} did not survive the delivery.
            Somebody must have dropped the {product}, it is broken.
            The {product} came with scratches. I would like a new one.
            I unpacked order {order} and found the {product} in pieces.
            The driver must have dropped order {order}, the {product} is damaged.
            There is damage on the {product} that came with order {order}.
        """),
        held_out=lines("""
            Something has hit the {product} on the way, it is broken.
            What a pity, there is damage all over my new {product}.
            The {product} was in pieces when I unpacked it.
            I opened order {order} and the {product} has scratches everywhere.
            Bad news about order {order}: you delivered a broken {product}.
        """),
    ),
    answers=paragraphs("""
        I am very sorry that the {product} arrived damaged. Please reply with a photo of the damage.
        You can then choose between a new one and a full refund, and you do not have to send it
        back.

        I am very sorry that the {product} from order {order} arrived damaged. Please reply with a
        photo of the damage. You can then choose between a new one and a full refund, and you do not
        have to send it back.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    How long does the new one take?
                    When would the new one come?
                    I would like a new one. When is it here?
                    How soon can you send another one?
                    Please send a new one. How long will that be?
                """),
                held_out=lines("""
                    And by when would I have the next one?
                    I prefer another one, is that quick?
                """),
            ),
            answer=paragraph("""
                As soon as we have your photo, a new one leaves our warehouse within two working
                days and arrives three to five working days later.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                My order arrived broken.
                Something in my parcel is damaged.
                I received a broken item.
                The parcel was crushed and the things inside are broken.
                What can I do if an item is damaged?
            """),
            held_out=lines("""
                What you sent me is broken.
                There is damage on the things in my parcel.
            """),
        ),
        ask=paragraph("""
            I am very sorry to hear that. Could you please tell me which product is damaged, and
            your order number?
        """),
        give=GIVE_PRODUCT_AND_ORDER,
    ),
)

MISSING_PART = Intent(
    name="missing_part",
    questions=Variants(
        train=lines("""
            A part of the {furniture} is missing.
            The screws for my {furniture} are missing.
            I cannot build the {furniture} because a part is missing.
            My {furniture} has fewer parts than the instructions say.
            There is a piece missing from the {furniture}.
            I unpacked the {furniture} and not all the parts are there.
            Some parts of my {furniture} were not in the box.
            The bag of screws for the {furniture} is not complete.
            A part of the {furniture} in order {order} is missing.
            Order {order} came with a missing part. It is the {furniture}.
            In order {order} the screws for the {furniture} are missing.
            The {furniture} from order {order} has a part missing.
            I am missing a piece of the {furniture}, order number {order}.
            I received order {order}, but the {furniture} is not complete.
            You forgot to pack a part of the {furniture}.
            The {furniture} is one piece short.
            I counted the parts of the {furniture} and one is missing.
            I cannot put the {furniture} together, there are not enough screws.
            One part of the {furniture} was not in the parcel.
            The box of order {order} did not hold all the pieces of the {furniture}.
            There are not enough screws for the {furniture} in order {order}.
            You did not send every part of the {furniture} with order {order}.
        """),
        held_out=lines("""
            You forgot one piece when you packed my {furniture}.
            I counted all the screws of the {furniture} and some are missing.
            I want to build the {furniture}, but one part was not in the box.
            The box of order {order} is missing a piece of the {furniture}.
            For the {furniture} in order {order} I did not get all the parts.
        """),
    ),
    answers=paragraphs("""
        I am sorry that a part of the {furniture} is missing. Please reply with the number of the
        part from page two of the instructions. We will post it to you free of charge within two
        working days.

        I am sorry that a part of the {furniture} from order {order} is missing. Please reply with
        the number of the part from page two of the instructions. We will post it to you free of
        charge within two working days.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    I have no instructions. Where do I find them?
                    Where can I find the instructions?
                    I lost the instructions. What now?
                    Can you send me the instructions?
                    I cannot find the part number.
                """),
                held_out=lines("""
                    And where would that page be?
                    There was no booklet with it, what do I do?
                """),
            ),
            answer=paragraph("""
                You can download all instructions from the product page on our website. If you are
                not sure about the part, a photo will do as well.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                A part is missing.
                There were not enough screws in the box.
                I cannot build it because a part is missing.
                Not all the parts are in the parcel.
                What do I do about a missing part?
            """),
            held_out=lines("""
                One thing was not packed, and so a part is missing.
                I counted the screws and some are missing.
            """),
        ),
        ask=paragraph("""
            I am sorry about the missing part. Could you please tell me which product it belongs to,
            and your order number?
        """),
        give=Variants(
            train=lines("""
                It is the {furniture} from order {order}.
                The {furniture}, order number {order}.
                Order {order}, the {furniture}.
                It belongs to the {furniture}. The order number is {order}.
                My order is {order} and it is about the {furniture}.
            """),
            held_out=lines("""
                I am talking about the {furniture} that came as number {order}.
                Number {order}, and the {furniture} is the one.
            """),
        ),
    ),
)

WARRANTY = Intent(
    name="warranty",
    questions=Variants(
        train=lines("""
            How long is the guarantee on the {product}?
            Does the {product} have a guarantee?
            Is there a warranty on {a_product}?
            What is covered by the guarantee for the {product}?
            My {product} broke after some months. Is it under guarantee?
            I would like to know about the warranty of the {product}.
            How many years of guarantee does the {product} have?
            The {product} has a fault. Do I still have a guarantee?
            I bought the {product} on {date}. Is it still under guarantee?
            Is my {product} from {date} still under warranty?
            The {product} I bought on {date} is falling apart. Does the guarantee cover it?
            How long does the guarantee last for {a_product} bought on {date}?
            I have had the {product} since {date}. Do I still have a warranty?
            Until when is the guarantee valid if I got the {product} on {date}?
            For how many years is the {product} guaranteed?
            What happens if the {product} breaks? Is there a guarantee?
            Is the {product} covered if it breaks next year?
            I want to use the guarantee for my {product}.
            Please tell me about the guarantee of the {product}.
            I want to use the warranty of the {product} that I bought on {date}.
            You sold me the {product} on {date}. Am I still covered by the guarantee?
            The {product} from {date} is broken now. Does the warranty still hold?
        """),
        held_out=lines("""
            For how long do you guarantee {a_product}?
            If the {product} breaks in a year, am I covered by the warranty?
            Do you give any guarantee on the {product}?
            I have owned the {product} since {date}, does your guarantee still hold?
            You sold me {a_product} on {date} and now I want to use the warranty.
        """),
    ),
    answers=paragraphs("""
        The {product} comes with a guarantee of two years from the day you bought it. It covers all
        faults in material and making, but not normal wear. Please reply with a photo and we will
        repair or replace it.

        The {product} comes with a guarantee of two years, which began on {date}. It covers all
        faults in material and making, but not normal wear. Please reply with a photo and we will
        repair or replace it.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Do I need the receipt?
                    What do I need to show you?
                    I lost the receipt. Is that a problem?
                    Do I need proof that I bought it?
                    Do you need the invoice for that?
                """),
                held_out=lines("""
                    And without the paper from the till?
                    How do I prove that it comes from you?
                """),
            ),
            answer=paragraph("""
                The order number or the receipt is enough. If you have neither, we can find your
                purchase by your email address.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                How long is your guarantee?
                Do your products have a warranty?
                What does your guarantee cover?
                Something I bought is falling apart. Is it under guarantee?
                I have a question about the warranty.
            """),
            held_out=lines("""
                Do you give a guarantee?
                I want to use the warranty.
            """),
        ),
        ask=paragraph("""
            I will gladly tell you about our guarantee. Could you please tell me which product you
            mean?
        """),
        give=Variants(
            train=lines("""
                It is the {product}.
                The {product}.
                I mean the {product}.
                It is about {a_product}.
                My {product}.
            """),
            held_out=lines("""
                I was thinking of the {product}.
                That would be {a_product}.
            """),
        ),
    ),
)

INTENTS = (DAMAGED_ITEM, MISSING_PART, WARRANTY)
