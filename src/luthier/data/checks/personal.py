"""Personal data and secrets; what was found is masked in everything that is said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from luthier.core.findings import Code, Finding
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Seen
from luthier.data.personal import cards, emails, masked, phones, secrets, short_email, short_key

EMAIL = Code("D080", "warning", "an e-mail address", "mask it unless it is meant to be learned")
PHONE = Code("D081", "warning", "a phone number", "mask it unless it is meant to be learned")
CARD = Code("D082", "warning", "a card number", "mask it: a model can repeat it word for word")
SECRET = Code(
    "D083", "warning", "a key that looks secret", "take it out, and have the key replaced"
)


class Check(Base):
    """One finding a row of each sort."""

    codes: ClassVar[tuple[Code, ...]] = (EMAIL, PHONE, CARD, SECRET)

    @classmethod
    def see(cls, seen: Seen) -> Iterable[Finding]:
        """The row's text."""
        text = seen.whole
        if found := next(emails(text), None):
            yield EMAIL.at(seen.place, f"an e-mail address: {short_email(found.group())}")
        card = next(cards(text), None)
        if card is not None:
            yield CARD.at(seen.place, f"a card number: {masked(card.group())}")
        rest = text if card is None else text[: card.start()] + text[card.end() :]
        if found := next(phones(rest), None):
            yield PHONE.at(seen.place, f"a phone number: {masked(found.group())}")
        if found := next(secrets(text), None):
            yield SECRET.at(seen.place, f"a key that looks secret: {short_key(found.group())}")
