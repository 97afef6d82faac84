"""What customers write about the shop, its goods and its services."""

from luthier.demo.phrases import (
    Clarification,
    FollowUp,
    Intent,
    Variants,
    lines,
    paragraph,
    paragraphs,
)

STOCK_QUESTION = Intent(
    name="stock_question",
    questions=Variants(
        train=lines("""
            Is the {product} in stock?
            Do you have the {product} at the moment?
            When will the {product} be back in stock?
            The {product} is sold out. Will it come back?
            Can I still buy the {product}?
            I would like to buy the {product}. Is it available?
            Is there {a_product} left?
            Will you get the {product} again?
            Do you have the {textile} in {colour}?
            Is the {textile} in {colour} still available?
            I am looking for the {textile} in {colour}.
            When do you get the {textile} in {colour} again?
            Is there {a_textile} in {colour} in stock?
            Can I buy the {textile} in {colour}?
            The website says the {product} is gone. Will there be more?
            Do you have more than one {product} left?
            Can I get the {product} this week, or is it sold out?
            Is {a_product} available right now?
            Do you still sell the {product}?
            Does the {textile} also come in {colour}?
            Have you got the {textile} in {colour}?
            Is the {colour} {textile} sold out?
            I would like {a_textile} in {colour}. Do you have one?
        """),
        held_out=lines("""
            The {product} is gone from your website, will you have more of it?
            How many pieces of the {product} are left in stock?
            Could I buy {a_product} this week, or is it not available?
            Is the {textile} sold in {colour} too, and have you got one?
            I hope the {colour} {textile} is not sold out?
        """),
    ),
    answers=paragraphs("""
        The product page of the {product} shows how many we have in stock today. If it is sold out,
        please click on Tell me, and you will get an email as soon as it is back.

        The product page of the {textile} in {colour} shows how many we have in stock today. If it
        is sold out, please click on Tell me, and you will get an email as soon as it is back.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Can you keep one for me?
                    Can I reserve it?
                    Could you put one aside for me?
                    Can you save one for me?
                    Is it possible to reserve one?
                """),
                held_out=lines("""
                    Would you hold it for some days?
                    May I book one already?
                """),
            ),
            answer=paragraph("""
                Yes, we can keep one for you for three days. Please reply with your name and the
                shop where you would like to collect it.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                Is it in stock?
                I would like to know if something is in stock.
                When do you get new stock?
                What I want is sold out. Will it come back?
                Can you check your stock for me?
            """),
            held_out=lines("""
                I am looking for something that is sold out.
                Can you tell me if it is available?
            """),
        ),
        ask=paragraph("""
            I will gladly help you with that. Could you please tell me which product you are looking
            for?
        """),
        give=Variants(
            train=lines("""
                It is the {product}.
                The {product}.
                I am looking for the {product}.
                I want to buy {a_product}.
                I need the {product}.
            """),
            held_out=lines("""
                I was thinking of the {product}.
                My wish is {a_product}.
            """),
        ),
    ),
)

OPENING_HOURS = Intent(
    name="opening_hours",
    questions=Variants(
        train=lines("""
            When are you open?
            What are your opening hours?
            Are you open on Sunday?
            What time do you close?
            When does the shop open in the morning?
            Is your shop open on Saturday?
            How late are you open today?
            What are the opening hours of the shop in {branch}?
            When is the shop in {branch} open?
            Is the shop in {branch} open on Sunday?
            What time does your shop in {branch} close?
            How long is the shop in {branch} open today?
            I want to visit your shop in {branch}. When are you open?
            Can I come to the shop in {branch} on Saturday?
            Until what time can I visit your shop?
            On which days is the shop open?
            I work late. Are you still open after five?
            At what time do you open?
            Is the shop closed on Sunday?
            Are you open at the weekend?
            Until when is the shop in {branch} open?
            On which days can I visit you in {branch}?
            Is your {branch} shop closed at the weekend?
            At what time does the {branch} shop open?
        """),
        held_out=lines("""
            Until what hour can I come to your shop?
            On which days of the week are you open?
            Is the shop still open after five today?
            At what hour do you open the shop in {branch}?
            Would I find your {branch} shop open at the weekend?
        """),
    ),
    answers=paragraphs("""
        Our shops are open from nine to six, Monday to Saturday, and from eleven to four on Sunday.
        You can order online at any time. We look forward to seeing you!

        Our shop in {branch} is open from nine to six, Monday to Saturday, and from eleven to four
        on Sunday. You can order online at any time. We look forward to seeing you!
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Is there a place to park?
                    Where can I park?
                    Can I come by car?
                    Do you have a car park?
                    Is parking free?
                """),
                held_out=lines("""
                    And where would I leave my car?
                    Is it easy to find a parking space?
                """),
            ),
            answer=paragraph("""
                You can park behind the shop. The first two hours are free for our customers,
                just show your ticket at the till.
            """),
        ),
        FollowUp(
            questions=Variants(
                train=lines("""
                    Are you open on public holidays?
                    What about holidays?
                    Do you close on holidays?
                    Is the shop open on New Year's Day?
                """),
                held_out=lines("""
                    And on a bank holiday?
                    Do you take a break over Easter?
                """),
            ),
            answer=paragraph("""
                Our shops are closed on public holidays. You can order online on those days too, and
                we will answer your messages on the next working day.
            """),
        ),
    ),
)

GIFT_WRAPPING = Intent(
    name="gift_wrapping",
    questions=Variants(
        train=lines("""
            Can you wrap the {gift} as a present?
            Do you offer gift wrapping for the {gift}?
            I want to give away the {gift}. Can you wrap it?
            How much is gift wrapping for the {gift}?
            Could you gift wrap the {gift} for me?
            The {gift} is a present. Is gift wrapping possible?
            Can I have the {gift} in gift paper?
            The {gift} is {a_occasion} present. Can you wrap it?
            I need the {gift} wrapped as {a_occasion} gift.
            Do you wrap the {gift} as {a_occasion} present?
            Please wrap the {gift}, it is meant as {a_occasion} present.
            I am buying {a_gift} as {a_occasion} present. Do you do gift wrapping?
            How can I get the {gift} gift wrapped as {a_occasion} present?
            Can the {gift} come in gift paper? It is {a_occasion} present.
            Please put the {gift} in nice paper, it is a gift.
            I would like a ribbon around the {gift}.
            Can the {gift} be packed as a gift?
            What do you charge for wrapping the {gift}?
            I would love to get the {gift} already wrapped.
            My friend gets the {gift} as {a_occasion} gift. Could you wrap it nicely?
            Can you put paper and a ribbon around the {gift}? It is {a_occasion} gift.
            The {gift} will be {a_occasion} gift. What does wrapping cost?
        """),
        held_out=lines("""
            Would you put a ribbon and nice gift paper around the {gift}?
            It would be lovely to get {a_gift} that is already wrapped.
            Could you pack the {gift} so that it looks like a present?
            My friends get the {gift} as {a_occasion} gift, could you wrap it?
            What do you charge for wrapping {a_gift} as {a_occasion} present?
        """),
    ),
    answers=paragraphs("""
        We will gladly wrap the {gift} for you. Gift wrapping costs 4 dollars and comes with a
        ribbon and a card. Please tick Gift at checkout and type your message for the card.

        We will gladly wrap the {gift} as {a_occasion} present for you. Gift wrapping costs 4
        dollars and comes with a ribbon and a card. Please tick Gift at checkout and type your
        message for the card.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Will the price be in the parcel?
                    Is there a bill in the parcel?
                    Can you leave out the invoice?
                    Will my friend see the price?
                    Can you send it to another address without the bill?
                """),
                held_out=lines("""
                    I hope nobody finds the price inside?
                    Does the receipt travel with the gift?
                """),
            ),
            answer=paragraph("""
                There is never a price or an invoice in a gift parcel. We send the invoice to you by
                email.
            """),
        ),
    ),
    clarification=Clarification(
        vague=Variants(
            train=lines("""
                Do you offer gift wrapping?
                Can you wrap a present for me?
                How much is gift wrapping?
                I am buying a present. Can you wrap it?
                Is gift wrapping possible?
            """),
            held_out=lines("""
                Would you pack something as a present?
                I need a gift, could you wrap it?
            """),
        ),
        ask=paragraph("""
            Yes, we love to wrap presents. Could you please tell me what you would like to have
            wrapped?
        """),
        give=Variants(
            train=lines("""
                It is the {gift}.
                The {gift}, please.
                I want to give away the {gift}.
                I am buying {a_gift}.
                The present is {a_gift}.
            """),
            held_out=lines("""
                I was thinking of the {gift}.
                My friend gets {a_gift}.
            """),
        ),
    ),
)

INTENTS = (STOCK_QUESTION, OPENING_HOURS, GIFT_WRAPPING)
