"""Personal data and secrets; what was found is masked in everything that is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

from luthier.core.findings import Code, Finding
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Seen

EMAIL = Code("D080", "warning", "an e-mail address", "mask it unless it is meant to be learned")
PHONE = Code("D081", "warning", "a phone number", "mask it unless it is meant to be learned")
CARD = Code("D082", "warning", "a card number", "mask it: a model can repeat it word for word")
SECRET = Code(
    "D083", "warning", "a key that looks secret", "take it out, and have the key replaced"
)

_EMAIL = re.compile(r"[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,}")
#: Reserved for examples (RFC 2606).
_INVENTED = re.compile(
    r"@(?:.*\.)?(?:example\.(?:com|org|net)|.*\.(?:example|test|invalid))$", re.I
)
_PHONE = re.compile(
    r"(?<![\w.+/=-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})(?![\w/-]|\.\d)"
)
#: Kept free for stories: 555-0100 to 555-0199.
_STORIES = re.compile(r"555\D{0,2}01\d\d$")
_CARD = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w.-])")
_ISSUERS = re.compile(r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6\d{15}")
_SECRET = re.compile(
    r"\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{50,}"
    r"|\bsk-(?=[\w-]*\d)[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}\b"
    r"|\bhf_[A-Za-z0-9]{30,}\b|\bglpat-[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|(?i:password|passwd|api[_-]?key|secret|token)[\"']?\s*[=:]\s*[\"']?"
    r"(?=[\w/+-]*\d)(?=[\w/+-]*[A-Za-z])[\w/+-]{16,}"
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_DIGITS = re.compile(r"\d")


class Check(Base):
    """One finding a row of each sort."""

    codes: ClassVar[tuple[Code, ...]] = (EMAIL, PHONE, CARD, SECRET)

    def see(self, seen: Seen) -> Iterable[Finding]:
        """The row's text."""
        text = seen.whole
        if "@" in text:
            real = next(filter(_is_email, map(_group, _EMAIL.finditer(text))), None)
            if real is not None:
                yield EMAIL.at(seen.place, f"an e-mail address: {_short_email(real)}")
        if _DIGITS.search(text):
            card = next((m for m in _CARD.finditer(text) if _is_card(m.group())), None)
            if card is not None:
                yield CARD.at(seen.place, f"a card number: {masked(card.group())}")
            rest = text if card is None else text[: card.start()] + text[card.end() :]
            if number := next(filter(_is_phone, map(_group, _PHONE.finditer(rest))), None):
                yield PHONE.at(seen.place, f"a phone number: {masked(number)}")
        if found := _SECRET.search(text):
            yield SECRET.at(seen.place, f"a key that looks secret: {_short_key(found.group())}")


def hidden(text: str) -> str:
    """A text with everything masked that this check would find in it.

    >>> hidden("Write to jane@corp.co.uk or call +44 20 7946 0958.")
    'Write to j…@… or call +4* ** **** ****.'
    """
    text = _KEY_BLOCK.sub(lambda found: _short_key(found.group()), text)
    text = _SECRET.sub(lambda found: _short_key(found.group()), text)
    for pattern, real, short in (
        (_EMAIL, _is_email, _short_email),
        (_CARD, _is_card, masked),
        (_PHONE, _is_phone, masked),
    ):
        text = pattern.sub(partial(_replaced, real, short), text)
    return text


def masked(number: str) -> str:
    """A number without its figures, of which the first stays.

    >>> masked("+1 212 867 5309")
    '+1 *** *** ****'
    """
    first = _DIGITS.search(number)
    at = first.end() if first else 0
    return number[:at] + _DIGITS.sub("*", number[at:])


def _replaced(
    real: Callable[[str], bool], short: Callable[[str], str], found: re.Match[str]
) -> str:
    return short(found.group()) if real(found.group()) else found.group()


def _group(found: re.Match[str]) -> str:
    return found.group()


def _is_email(address: str) -> bool:
    return not _INVENTED.search(address)


def _short_email(address: str) -> str:
    return f"{address[:1]}…@…"


def _short_key(key: str) -> str:
    head = "" if key[0] == "-" else key[:2]
    return f"{head}… ({len(key)} characters)"


def _is_phone(number: str) -> bool:
    figures = len(_DIGITS.findall(number))
    return 9 <= figures <= 15 and not _STORIES.search(number)


def _is_card(number: str) -> bool:
    """Luhn's sum, and an issuer's first figures with their length."""
    figures = [int(each) for each in _DIGITS.findall(number)]
    if not _ISSUERS.fullmatch("".join(map(str, figures))) or len(set(figures)) < 2:
        return False
    doubled = [2 * each - 9 * (each > 4) for each in figures[-2::-2]]
    return (sum(figures[-1::-2]) + sum(doubled)) % 10 == 0
