"""What customers write to send something back, swap it, or get their money for it."""

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

RETURN_ITEM = Intent(
    name="return_item",
    questions=Variants(
        train=lines("""
            I want to return the {product}.
            How can I return the {product} I bought?
            I do not like the {product} and would like to send it back.
            Can I send the {product} back?
            The {product} does not suit my home. How do I return it?
            What do I do to return {a_product}?
            I would like to give back the {product}.
            Is it possible to return the {product} if I have opened the box?
            I want to return the {product} from order {order}.
            How do I send back the {product} in order {order}?
            Please help me to return the {product}, order {order}.
            I would like to return {a_product}. My order number is {order}.
            Can I return the {product} I got with order {order}?
            I am not happy with the {product} of order {order} and want to return it.
            I have decided not to keep the {product}. How do I return it?
            The {product} is not what I wanted, so I would like to send it back.
            What are the steps to return the {product}?
            I regret buying the {product} and want to give it back.
            May I bring back {a_product} that I do not like?
            I do not want to keep the {product} from order {order}.
            The {product} from order {order} should go back to you. How do I do that?
            What must I do to return the {product} of order {order}?
        """),
        held_out=lines("""
            The {product} is not what I hoped for, how can I send it back?
            What are the steps for returning {a_product}?
            Buying the {product} was a mistake, may I return it?
            I do not like the {product} that came with order {order}, so it should go back.
            How does a return work? It is about the {product} of order {order}.
        """),
    ),
    answers=paragraphs("""
        You can return the {product} free of charge within thirty days. Please log in, open My
        orders and print the return label. Your money is back within five working days after the
        parcel has reached us.

        You can return the {product} from order {order} free of charge within thirty days. Please
        log in, open My orders and print the return label. Your money is back within five working
        days after the parcel has reached us.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    I have no printer. What can I do?
                    What if I cannot print the label?
                    Do I need the original box?
                    I threw the box away. Is that a problem?
                    Where do I take the parcel?
                """),
                held_out=lines("""
                    And without a printer?
                    The old packaging is gone, does that matter?
                """),
            ),
            answer=paragraph("""
                That is no problem. Use any strong box, take it to the nearest post office and show
                the return code from your account. They will print the label for you.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                I want to return something.
                How do returns work?
                Can I send something back?
                I would like to return a part of my order.
                What do I do to return an item?
            """),
            held_out=lines("""
                I do not like what I bought, how can I send it back?
                What are the steps for a return?
            """),
        ),
        ask=paragraph("""
            I will gladly help you with your return. Could you please tell me what you would like to
            send back, and your order number?
        """),
        give=Variants(
            train=lines("""
                It is the {product} from order {order}.
                The {product}, order {order}.
                I would like to return the {product}. The number is {order}.
                Order {order}, and it is the {product}.
                My order number is {order} and I want to send back the {product}.
            """),
            held_out=lines("""
                That would be {a_product}, bought under number {order}.
                Number {order}. The {product} has to go.
            """),
        ),
    ),
)

REFUND_STATUS = Intent(
    name="refund_status",
    questions=Variants(
        train=lines("""
            Where is my refund for order {order}?
            When do I get my money back for order {order}?
            I have not received the refund for order {order} yet.
            How long does the refund for order {order} take?
            I returned order {order}, but there is no refund so far.
            Has my refund for order {order} been paid?
            What is the status of the refund for order {order}?
            I am still waiting for the money from order {order}.
            I sent order {order} back on {date} and still have no refund.
            I returned order {order} on {date}. When will I get my money?
            My return of order {order} went out on {date}. Where is the refund?
            On {date} I sent back order {order}. Has the refund been made?
            I gave the return for order {order} to the post on {date} and wait for my money.
            Order {order} went back to you on {date}, but I have seen no money.
            You have not paid me back for order {order}.
            My bank account shows no refund for order {order}.
            Could you check the refund of my return {order}?
            When will you refund order {order}?
            Is the money for order {order} on its way to my account?
            I posted the return of order {order} on {date} and have not been paid back.
            You should have refunded order {order} by now, I sent it back on {date}.
            It was on {date} that I returned order {order}, and the money is not here yet.
        """),
        held_out=lines("""
            No refund for order {order} has reached my bank account.
            When are you going to pay back the money for order {order}?
            Could you check whether my refund for the return {order} has been made?
            I posted my return {order} on {date}, so when do I get the money?
            You have had order {order} back since {date} and I still wait for the refund.
        """),
    ),
    answers=paragraphs("""
        Thank you for asking about your refund for order {order}. We pay it within five working days
        after your return has reached us, and you will get an email on that day. The money goes to
        the card or account you paid with.

        Thank you for asking about your refund for order {order}, which you sent back on {date}. We
        pay it within five working days after your return has reached us, and you will get an email
        on that day. The money goes to the card or account you paid with.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    How do I know that my return has reached you?
                    Has my parcel reached you?
                    Can I see if the return has arrived?
                    Where can I check my return?
                    How can I track the return?
                """),
                held_out=lines("""
                    Is there a way to see that you got it?
                    How would I find out if it has come to you?
                """),
            ),
            answer=paragraph("""
                You can follow it with the number on your post office receipt. We also send you an
                email as soon as the return has reached our warehouse.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                Where is my refund?
                When do I get my money back?
                I have not received my refund yet.
                How long does a refund take?
                I am still waiting for my money.
            """),
            held_out=lines("""
                No refund has reached my account.
                When will you pay my money back?
            """),
        ),
        ask=paragraph("""
            I will gladly look into your refund. Could you please tell me the number of the order
            that you sent back?
        """),
        give=GIVE_ORDER,
    ),
)

EXCHANGE_SIZE = Intent(
    name="exchange_size",
    questions=Variants(
        train=lines("""
            The {garment} is too small. Can I have it in size {size}?
            I need the {garment} in size {size} instead.
            Can I exchange the {garment} for size {size}?
            The {garment} is too big, I need size {size}.
            I would like to swap my {garment} for size {size}.
            The {garment} does not fit. Could you send me size {size}?
            I ordered the {garment} in the wrong size. I need a {size}.
            How can I exchange my {garment}? I would need size {size}.
            Please change the {garment} from order {order} to size {size}.
            The {garment} in order {order} is too tight, I need size {size}.
            Order {order}: the {garment} should be a size {size}.
            I want to exchange the {garment} of order {order} for size {size}.
            The {garment} I got with order {order} is too long. Can I get size {size}?
            Can you send me the {garment} in size {size} for order {order}?
            My new {garment} is too wide. Do you have it in {size}?
            The {garment} is too short for me, I want to exchange it for size {size}.
            I picked the wrong size. Can I have the {garment} in {size}?
            What do I do to get the {garment} in another size? I wear {size}.
            I would rather have the {garment} in size {size}.
            The {garment} from order {order} is not my size, I take a {size}.
            Could I swap the {garment} of order {order} for a {size}?
            Order {order} has the {garment} in the wrong size, I need {size}.
        """),
        held_out=lines("""
            My {garment} is far too tight, so I want to exchange it for a {size}.
            Sadly the {garment} is not the right size, I would need a {size}.
            What do I have to do to swap the {garment} for size {size}?
            The {garment} of order {order} is too wide, do you have size {size}?
            I picked the wrong size for the {garment} in order {order}, I want a {size}.
        """),
    ),
    answers=paragraphs("""
        We will gladly exchange the {garment} for size {size}, free of charge. Please send yours
        back within thirty days with the return label from your account, and the new one leaves as
        soon as the parcel has reached us.

        We will gladly exchange the {garment} from order {order} for size {size}, free of charge.
        Please send yours back within thirty days with the return label from your account, and the
        new one leaves as soon as the parcel has reached us.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    How do I know which size fits me?
                    Do you have a size chart?
                    What if that size does not fit?
                    How do your sizes run?
                    I am not sure about the size. Can you help?
                """),
                held_out=lines("""
                    And if this one is wrong again?
                    Is there a table with measurements?
                """),
            ),
            answer=paragraph("""
                You will find a size chart with all measurements below each photo on our website.
                Should the new size not fit, you may exchange it again free of charge.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                I need another size.
                Can I exchange something for a different size?
                What I ordered does not fit.
                My clothes are too small. Can I swap them?
                How can I exchange a size?
            """),
            held_out=lines("""
                What I bought is too tight, I want another size.
                Sadly I picked the wrong size.
            """),
        ),
        ask=paragraph("""
            We will gladly exchange it for you. Could you please tell me what you ordered and which
            size you need?
        """),
        give=Variants(
            train=lines("""
                It is the {garment}, and I need size {size}.
                The {garment} in size {size}.
                I ordered the {garment} and need a {size}.
                Size {size} please, for the {garment}.
                The {garment}. Size {size} should fit.
            """),
            held_out=lines("""
                My {garment}, please, and {size} is what I wear.
                In {size}, and I mean the {garment}.
            """),
        ),
    ),
)

WRONG_ITEM = Intent(
    name="wrong_item",
    questions=Variants(
        train=lines("""
            You sent me the wrong item in order {order}.
            I received something I did not order. My order number is {order}.
            The wrong thing was in the parcel of order {order}.
            Order {order} is not what I ordered.
            There is a mistake in order {order}, I got the wrong article.
            The parcel of order {order} has somebody else's things in it.
            What do I do with the wrong item from order {order}?
            I ordered the {product} in order {order}, but got something else.
            Instead of the {product} you sent me a different thing. The order is {order}.
            I should have received the {product}, but order {order} had the wrong item.
            In order {order} I found the wrong article instead of the {product}.
            Order {order} was for the {product}, but you sent me something different.
            I got the wrong item, I wanted the {product}. Order number {order}.
            Where is my {product}? Order {order} came with another thing in the box.
            I opened the parcel of order {order} and it is not what I ordered.
            You mixed up order {order} with another one.
            The article in order {order} is not mine.
            Somebody packed the wrong thing for order {order}.
            The things in order {order} are not the ones I chose.
            I paid for the {product}, but in order {order} there was something else.
            The {product} was not in the parcel of order {order}, there was another item.
            You packed the wrong product instead of the {product} in order {order}.
        """),
        held_out=lines("""
            I opened order {order} and found the wrong things.
            You have mixed up my order {order} with something else.
            What I received with order {order} is not what I chose.
            I paid for the {product}, but found another article in the box of order {order}.
            Order {order} came without the {product}, you packed the wrong item.
        """),
    ),
    answers=paragraphs("""
        I am very sorry that we sent you the wrong item in order {order}. The right one leaves our
        warehouse within two working days. You will get a free return label by email for the wrong
        one.

        I am very sorry that we sent you the wrong item in order {order}. The {product} leaves our
        warehouse within two working days. You will get a free return label by email for the wrong
        one.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Do I have to send the wrong one back first?
                    Do I have to wait until you have the return?
                    Will you wait for my return?
                    When do I have to send it back?
                    How much time do I have for the return?
                """),
                held_out=lines("""
                    Must the false one be with you before that?
                    How soon do you need the other thing back?
                """),
            ),
            answer=paragraph("""
                There is no need to hurry. We send the right item at once, and you have thirty days
                to return the wrong one with the free label.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                You sent me the wrong item.
                I received something I did not order.
                The wrong thing was in my parcel.
                This is not what I ordered.
                I got the wrong article.
            """),
            held_out=lines("""
                I opened the parcel and found the wrong things.
                You have mixed up my order.
            """),
        ),
        ask=paragraph("""
            I am very sorry about the mix-up. Could you please tell me your order number, so that I
            can send you the right item?
        """),
        give=GIVE_ORDER,
    ),
)

INTENTS = (RETURN_ITEM, REFUND_STATUS, EXCHANGE_SIZE, WRONG_ITEM)
