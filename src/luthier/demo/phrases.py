"""The shapes that the demo's phrases take, and the phrases that every intent shares.

The intents themselves stand in the files ``phrases_*``, the values of their slots in ``slots``. A
slot is written ``{order}``; written ``{a_product}`` it comes with its article ("an oak bench").

The policies of Fern & Oak, which all answers keep to: orders leave within two working days and
arrive three to five working days later; delivery costs 5 dollars and nothing from 60 dollars on;
returns are free for thirty days; refunds take five working days; the guarantee runs for two years.
An answer promises only what holds for any order, since no order book stands behind the demo.
"""

import re
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Variants:
    """Strings of one role, those for training apart from those that only the held-out split has.

    Args:
        train: what training sees.
        held_out: what training never sees; shares no element with ``train``.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """Return the strings of one split."""
        return self.train if split == "train" else self.held_out


@dataclass(frozen=True)
class FollowUp:
    """A later question of the same dialogue, and what the shop answers.

    Args:
        questions: phrasings without slots.
        answer: the answer; names no slot, so that it follows any first question of its intent.
    """

    questions: Variants
    answer: str


@dataclass(frozen=True)
class Clarification:
    """A question that lacks what the shop must know, and how the two of them get there.

    Args:
        vague: first questions without any slot.
        ask: the shop asks for what is missing.
        give: the customer supplies it; some answer of the intent has exactly these slots.
    """

    vague: Variants
    ask: str
    give: Variants


@dataclass(frozen=True)
class Intent:
    """One thing customers write about.

    Args:
        name: the label for classification.
        questions: phrasings, with slots.
        answers: one answer for each set of slots that a question of this intent may carry, so
            that the question alone decides which answer is right.
        follow_ups: questions that may come next.
        clarification: the way through a question that says too little, where there is one.
    """

    name: str
    questions: Variants
    answers: tuple[str, ...]
    follow_ups: tuple[FollowUp, ...]
    clarification: Clarification | None = None


def lines(text: str) -> tuple[str, ...]:
    """Return the non-empty lines of a text block, each without its indentation.

    >>> lines('''
    ...     Where is it?
    ...     When does it come?
    ... ''')
    ('Where is it?', 'When does it come?')
    """
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def paragraphs(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text block, each joined to one line.

    >>> paragraphs('''
    ...     Thank you.
    ...     It is on its way.
    ...
    ...     Goodbye.
    ... ''')
    ('Thank you. It is on its way.', 'Goodbye.')
    """
    return tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


def paragraph(text: str) -> str:
    """Return a text block of one paragraph as one line."""
    (only,) = paragraphs(text)
    return only


GREETINGS = lines("""
    Hi,
    Hello,
    Hi there,
    Hello there,
    Hey,
    Good morning,
    Good afternoon,
    Good evening,
    Dear Fern & Oak,
    Hello Fern & Oak,
""")

THANKS = lines("""
    Thanks!
    Thank you.
    Many thanks.
    Thanks in advance.
    Thank you very much.
    Thanks a lot!
    Kind regards.
    Best wishes.
""")

# The empty string stands several times, because most customers come straight to the point.
OPENERS = (*[""] * 6, *GREETINGS)
CLOSERS = (*[""] * 7, *THANKS)

FOLLOW_UP_OPENERS = ("", "", "", "Thanks.", "Okay, thank you.", "Great.", "Good to know.")

# Slips that people make; at most one goes into a question, and never into a slot.
TYPOS = {
    "address": "adress",
    "arrived": "arived",
    "broken": "borken",
    "cancel": "cancle",
    "card": "crad",
    "code": "coed",
    "colour": "color",
    "cost": "csot",
    "damaged": "damged",
    "delivery": "delivry",
    "exchange": "exchage",
    "guarantee": "garantee",
    "invoice": "invocie",
    "missing": "mising",
    "number": "numbr",
    "open": "opne",
    "order": "oder",
    "parcel": "parcle",
    "password": "pasword",
    "please": "plese",
    "received": "recieved",
    "refund": "refnud",
    "return": "retrun",
    "someone": "somone",
    "stock": "stcok",
    "wrap": "wrpa",
    "wrong": "worng",
}

FAREWELL = FollowUp(
    questions=Variants(
        train=lines("""
            That is all I needed.
            Perfect, that was all.
            You have been very helpful, thank you!
            Wonderful, thank you for the quick answer.
            That answers my question, thanks.
            Lovely, thanks for your help.
            Good, then I have no more questions.
            Thank you, that helps a lot.
        """),
        held_out=lines("""
            Brilliant, nothing else from me.
            Super, thanks for sorting this out.
            Thank you so much, goodbye!
        """),
    ),
    answer=paragraph("""
        You are very welcome! Thank you for shopping at Fern & Oak, and have a lovely day.
    """),
)

# How customers give their order number when the shop asks for it.
GIVE_ORDER = Variants(
    train=lines("""
        It is {order}.
        My order number is {order}.
        Sure, the number is {order}.
        Of course, {order}.
        I found it, it is {order}.
        Here it is: {order}
        The email says {order}.
        Order {order}.
    """),
    held_out=lines("""
        Yes, one moment, it says {order} here.
        That would be {order}.
        Just found the mail: number {order}.
    """),
)
