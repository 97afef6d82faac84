"""What customers write about an order before it has arrived."""

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

ORDER_STATUS = Intent(
    name="order_status",
    questions=Variants(
        train=lines("""
            Where is my order {order}?
            What is the status of order {order}?
            I would like to know where order {order} is right now.
            Can you tell me if order {order} has been sent?
            Has order number {order} left your warehouse yet?
            When will order {order} arrive?
            How can I track order {order}?
            Please give me an update on order {order}.
            I placed order {order} and wonder how far it is.
            Is order {order} on its way?
            I am waiting for order {order}. Is there any news?
            When will the {product} from order {order} be delivered?
            Has the {product} in order {order} been sent yet?
            Can you check how far the {product} from order {order} has got?
            I bought {a_product}, order number {order}. When does it come?
            Where can I see the tracking for the {product} in order {order}?
            Could you look up order {order} for me?
            I just want to know when my order {order} will be here.
            Did you already ship order {order}?
            On which day can I expect order {order}?
            How far is my purchase with the number {order}?
            Is there any news about the shipping of order {order}?
            I have not got a tracking link for order {order}.
            I wonder when the {product} from order {order} will get here.
            Do you know where the {product} of order {order} is now?
        """),
        held_out=lines("""
            Could you find out where my purchase {order} is at the moment?
            Any idea on what day order {order} will be delivered to me?
            Tell me please if order {order} was already shipped.
            I would be glad to hear when the {product} of order {order} gets here.
            Any tracking news on the {product} that I bought with order {order}?
        """),
    ),
    answers=paragraphs("""
        Thank you for asking about order {order}. Orders leave our warehouse within two working
        days and arrive three to five working days later. The tracking link in your dispatch email
        shows where your parcel is.

        Thank you for asking about the {product} in order {order}. Orders leave our warehouse within
        two working days and arrive three to five working days later. The tracking link in your
        dispatch email shows where your parcel is.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Can I choose the day of delivery?
                    Is it possible to pick another delivery day?
                    I am away this week. Can it come later?
                    What if I am not at home that day?
                    Could the parcel come on a different day?
                """),
                held_out=lines("""
                    And if nobody can open the door?
                    May I move the delivery to some other day?
                """),
            ),
            answer=paragraph("""
                You can choose another day. Open the tracking link and pick the day that suits you,
                or ask the driver to leave the parcel with a neighbour.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                Where is my order?
                I would like to know where my parcel is.
                When will my order arrive?
                Can you check the status of my order?
                Has my parcel been sent yet?
            """),
            held_out=lines("""
                Could you find out where my parcel is?
                What day will my order be delivered?
            """),
        ),
        ask=paragraph("""
            I will gladly check that for you. Could you please tell me your order number? It has
            four digits and stands at the top of your confirmation email.
        """),
        give=GIVE_ORDER,
    ),
)

LATE_DELIVERY = Intent(
    name="late_delivery",
    questions=Variants(
        train=lines("""
            My order {order} is late.
            Order {order} should have been here days ago.
            Why is order {order} taking so long?
            I am still waiting for order {order} and it is overdue.
            Order {order} has not arrived in time. What happened?
            The delivery of order {order} is delayed and nobody tells me why.
            It has been two weeks and order {order} is still not here.
            Order {order} was due on {date} and has not come.
            You promised order {order} for {date}, but nothing arrived.
            My parcel with order {order} should have come on {date}. Where is it?
            I expected order {order} on {date} and it is still not here.
            The delivery date of order {order} was {date}. Why is it late?
            Nobody delivered order {order} on {date}, although that was the date you gave me.
            I stayed at home on {date} for order {order}, but no driver came.
            Order {order} is late, it was meant to arrive on {date}.
            I am getting impatient, order {order} is very late.
            What is wrong with order {order}? I have been waiting for weeks.
            Nothing has arrived of order {order} and the date has passed.
            I have been waiting too long for order {order}.
            The driver did not bring order {order} on {date}.
            Your email said that order {order} comes on {date}, but it did not come.
            {date} is over and order {order} has not been delivered.
        """),
        held_out=lines("""
            I have now waited three weeks for order {order}, this is too late.
            Why the delay with order {order}? It should be here.
            Your website promised order {order} by {date}, yet nothing has come.
            {date} has passed and I am still waiting for order {order}.
            Order {order} did not arrive on {date} as you had promised.
        """),
    ),
    answers=paragraphs("""
        I am sorry that order {order} is late. I have asked the carrier to look for your parcel and
        you will have an answer by email within one working day. If it is lost, we will send you a
        new one free of charge.

        I am sorry that order {order} did not arrive on {date}. I have asked the carrier to look for
        your parcel and you will have an answer by email within one working day. If it is lost, we
        will send you a new one free of charge.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Do I get my delivery cost back?
                    Will you refund the delivery charge?
                    Is there some compensation for the delay?
                    I paid for delivery. Do I get that back?
                    What do I get for the long wait?
                """),
                held_out=lines("""
                    Can I at least have the shipping money back?
                    Do you offer anything for the trouble?
                """),
            ),
            answer=paragraph("""
                We refund the delivery cost of every late order, and you will see the money in your
                account within five working days.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                My order is late.
                My parcel should have been here days ago.
                Why is my delivery taking so long?
                I am still waiting for my order and it is overdue.
                My delivery did not come in time.
            """),
            held_out=lines("""
                I have been waiting too long for my parcel.
                Why the delay? My order should be here.
            """),
        ),
        ask=paragraph("""
            I am sorry for the wait. Could you please tell me your order number, so that I can ask
            the carrier about your parcel?
        """),
        give=GIVE_ORDER,
    ),
)

CANCEL_ORDER = Intent(
    name="cancel_order",
    questions=Variants(
        train=lines("""
            Please cancel order {order}.
            I want to cancel my order {order}.
            Can I still cancel order {order}?
            I changed my mind about order {order} and would like to cancel it.
            How do I cancel order number {order}?
            I ordered twice by mistake, please cancel order {order}.
            I need to cancel order {order} before it is sent.
            Is it too late to cancel order {order}?
            I would like to stop order {order}.
            Please cancel the {product} in order {order}.
            I no longer need the {product} from order {order}, please cancel it.
            Can you take the {product} out of order {order}?
            I want to cancel only the {product} in order {order}.
            I ordered {a_product} by mistake, please cancel it. The order number is {order}.
            I have decided against order {order}, please stop it.
            Please do not send order {order}.
            I do not want order {order} any more.
            Would you cancel my purchase with the number {order}?
            I found a better price elsewhere, so please cancel order {order}.
            Please remove the {product} from order {order}.
            I do not want the {product} in order {order} any more, can you cancel it?
            Is it possible to cancel the {product} before order {order} is sent?
        """),
        held_out=lines("""
            Please stop order {order}, I have found something cheaper.
            May I still cancel my purchase {order}, or has it been sent?
            Sorry, I do not need order {order} any longer, please cancel.
            Could you cancel the {product} and send the rest of order {order}?
            Kindly remove the {product} from my order {order}, I do not want it now.
        """),
    ),
    answers=paragraphs("""
        I have asked our warehouse to cancel order {order}. If it has not left yet, you will have
        your money back within five working days. If it is already on its way, simply refuse the
        parcel and we will refund you.

        I have asked our warehouse to cancel the {product} in order {order}. If it has not left yet,
        you will have your money back within five working days. If it is already on its way, simply
        refuse the parcel and we will refund you.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Does it cost anything to cancel?
                    Is there a fee for that?
                    Do I have to pay for the cancellation?
                    Will you charge me for cancelling?
                    Is cancelling free?
                """),
                held_out=lines("""
                    What do you charge for this?
                    I hope that comes without a fee?
                """),
            ),
            answer=paragraph("""
                Cancelling is always free at Fern & Oak. You will get back the full amount that you
                paid for it.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                I want to cancel my order.
                Please cancel my order.
                Can I still cancel what I ordered?
                I changed my mind and would like to cancel.
                How do I cancel an order?
            """),
            held_out=lines("""
                Please stop my order, I have changed my mind.
                May I still cancel my purchase?
            """),
        ),
        ask=paragraph("""
            I can help you to cancel. Could you please tell me your order number, so that I can ask
            our warehouse to stop it?
        """),
        give=GIVE_ORDER,
    ),
)

CHANGE_ADDRESS = Intent(
    name="change_address",
    questions=Variants(
        train=lines("""
            Please send order {order} to {address} instead.
            I need to change the address of order {order} to {address}.
            I have moved. Can order {order} go to {address}?
            The new delivery address for order {order} is {address}.
            Can you change the delivery address of order {order}? It should be {address}.
            I typed the wrong address for order {order}. The right one is {address}.
            Could you deliver order {order} to {address}?
            Order {order} has my old address. I now live at {address}.
            I gave you the wrong street for order {order}, it must be {address}.
            Please update the address on order {order} to {address}.
            Is it possible to have order {order} delivered to {address} instead?
            I would like order {order} to come to my office at {address}.
            Can I still change where order {order} goes? I want it at {address}.
            We moved to {address} last week, so please change order {order}.
            My parcel {order} should go to another address, {address}.
            Please correct the street of order {order}, I live at {address}.
            There is a mistake in the address of order {order}. It should say {address}.
            Would you redirect order {order} to {address}?
            We have a new home. Please bring order {order} to {address}.
            Do not send order {order} to my old address, but to {address}.
        """),
        held_out=lines("""
            My new home is at {address}, please change this for order {order}.
            I made a mistake in my address: order {order} should go to {address}.
            Would it be possible to redirect parcel {order} to {address}?
            Do not deliver order {order} to the old street, I live at {address} now.
            For order {order}, please correct the delivery address to {address}.
        """),
    ),
    answers=paragraphs("""
        Thank you for letting us know. I have changed the delivery address of order {order} to
        {address}. If the parcel has already left, the carrier will bring it to the new address one
        or two days later.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Will you use this address for my next orders too?
                    Is my account updated as well?
                    Do I need to change it in my account?
                    Does that change the address in my account?
                    Will later orders go there too?
                """),
                held_out=lines("""
                    Is that now saved for everything I buy in future?
                    And my customer account, does it know the new place?
                """),
            ),
            answer=paragraph("""
                This changes one order only. To use the new address for all later orders, please log
                in and change it under My account.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                I need to change my delivery address.
                Can I change the address of my order?
                I typed the wrong address in my order.
                I have moved, can you change the address?
                My order has my old address.
            """),
            held_out=lines("""
                There is a mistake in my delivery address.
                Would it be possible to send my order to a new address?
            """),
        ),
        ask=paragraph("""
            I will gladly change the address for you. Could you please tell me your order number and
            the new street and house number?
        """),
        give=Variants(
            train=lines("""
                It is order {order} and the new address is {address}.
                Order {order}, and it should go to {address}.
                The number is {order}. Please send it to {address}.
                {order}, to {address} please.
                The new address is {address}, the order number {order}.
            """),
            held_out=lines("""
                Number {order} it is, and I now live in {address}.
                Bring it to {address}, and the order is {order}.
            """),
        ),
    ),
)

INTENTS = (ORDER_STATUS, LATE_DELIVERY, CANCEL_ORDER, CHANGE_ADDRESS)
