"""What customers write about their account, and to reach the people behind the shop."""

from luthier.demo.phrases import (
    FollowUp,
    Intent,
    Variants,
    lines,
    paragraph,
    paragraphs,
)

PASSWORD_RESET = Intent(
    name="password_reset",
    questions=Variants(
        train=lines("""
            I forgot my password.
            How do I reset my password?
            I cannot log in to my account.
            My password does not work.
            Please send me a new password.
            I want to change my password.
            The website says my password is wrong.
            I do not remember my password. What can I do?
            How can I get a new password for my account?
            I am locked out of my account.
            Can you reset the password of my account?
            I need help with logging in, the password is not accepted.
            Where can I change my password?
            I tried my password three times and it is always wrong.
            The login page does not let me in.
            I have lost my password.
            How do I get back into my account?
            My login does not work any more.
            Please help me to log in again.
            It says that my login is not valid.
            I need a new password.
            What do I do if I have forgotten my password?
        """),
        held_out=lines("""
            The login page does not accept my password any more.
            I cannot remember which password I chose.
            Where do I click to get a new password?
            Help me to get back into my account, please.
            It keeps saying that my login is wrong.
            I have forgotten how to log in.
        """),
    ),
    answers=paragraphs("""
        No problem. Please click on Forgot password on the login page and type your email address.
        We will send you a link for a new password, which is valid for one hour.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    I did not get an email.
                    The email does not arrive.
                    No email has come so far.
                    What if I do not get the link?
                    The link does not come.
                """),
                held_out=lines("""
                    I waited, but there is nothing in my inbox.
                    And if your mail never shows up?
                """),
            ),
            answer=paragraph("""
                Please look in your spam folder and check that you typed the email address of your
                account. If the email is not there after ten minutes, please try again.
            """),
        ),
        FollowUp(
            questions=Variants(
                train=lines("""
                    How long must the password be?
                    What makes a good password?
                    Are there rules for the new password?
                    Can I use my old password again?
                """),
                held_out=lines("""
                    What should the next one look like?
                    Are there any demands on its length?
                """),
            ),
            answer=paragraph("""
                Please choose a new password with at least ten letters or numbers, one that you have
                not used before.
            """),
        ),
    ),
)

SPEAK_TO_HUMAN = Intent(
    name="speak_to_human",
    questions=Variants(
        train=lines("""
            I want to speak to a human.
            Can I talk to a real person?
            Please connect me with someone from your team.
            Is there somebody I can call?
            I would like to talk to someone on the phone.
            Can someone call me?
            I do not want to chat with a computer.
            How can I reach your customer service by phone?
            I want to speak to a human about order {order}.
            Can someone call me about order {order}?
            I need to talk to a real person because of order {order}.
            Please let me speak to someone about my order {order}.
            Who can I call about order {order}?
            I would like to talk to your team about order {order}.
            Please put me through to an agent.
            I would rather speak with a person than with a robot.
            Can a member of your staff help me?
            Are there any people I can talk to?
            Give me a phone number where I can reach somebody.
            My problem is hard to explain, may I talk to someone?
            I want to discuss order {order} with a member of your staff.
            May I talk to a colleague of yours about order {order}?
            It is hard to explain, please call me about order {order}.
            I would rather discuss order {order} on the phone.
        """),
        held_out=lines("""
            Let me talk to a member of staff, please.
            Are there any people that I could call?
            Enough of this robot, I want a real person.
            I prefer to discuss order {order} with somebody from your team.
            My problem with order {order} is hard to explain, can someone call?
        """),
    ),
    answers=paragraphs("""
        Of course. Please reply with your phone number, and someone from our team will call you
        within one working day. We are on the phone from nine to five, Monday to Friday.

        Of course. Please reply with your phone number, and someone from our team will call you
        about order {order} within one working day. We are on the phone from nine to five, Monday to
        Friday.
    """),
    follow_ups=(
        FollowUp(
            questions=Variants(
                train=lines("""
                    Can you call me in the morning?
                    Can I choose the time of the call?
                    I am at work all day. Can you call at noon?
                    Could you call me after four?
                    When exactly will you call?
                """),
                held_out=lines("""
                    I am only free before ten, does that work?
                    May I pick the hour?
                """),
            ),
            answer=paragraph("""
                Just write the time that suits you next to your phone number. We will do our best to
                call you then.
            """),
        ),
    ),
)

INTENTS = (PASSWORD_RESET, SPEAK_TO_HUMAN)
