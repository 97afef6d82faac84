"""Personal data and secrets in a text: where they stand, and the text without them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

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
#: One of these is in every such key, in small letters: told in a twentieth of the time.
_HINTS = (
    *("akia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "sk-", "xox", "aiza", "hf_"),
    *("glpat-", "-----begin", "eyj", "password", "passwd", "api", "secret", "token"),
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_DIGITS = re.compile(r"\d")


def emails(text: str) -> Iterator[re.Match[str]]:
    """Addresses that are none of those kept for examples."""
    if "@" in text:
        yield from (m for m in _EMAIL.finditer(text) if not _INVENTED.search(m.group()))


def cards(text: str) -> Iterator[re.Match[str]]:
    """Card numbers whose sum is right."""
    if _DIGITS.search(text):
        yield from (m for m in _CARD.finditer(text) if _is_card(m.group()))


def phones(text: str) -> Iterator[re.Match[str]]:
    """Phone numbers that are none of those kept for stories."""
    if _DIGITS.search(text):
        yield from (m for m in _PHONE.finditer(text) if _is_phone(m.group()))


def secrets(text: str) -> Iterator[re.Match[str]]:
    """Keys by the forms that services give them."""
    if text.isascii():  # beyond, two letters may count as one whatever their case
        small = text.lower()
        if not any(hint in small for hint in _HINTS):
            return iter(())
    return _SECRET.finditer(text)


def masked_text(text: str) -> str:
    """A text with a word in brackets for each.

    >>> masked_text("Ask jo@work.io or +1 212 867 5309")
    'Ask [email] or [phone]'
    """
    return _replaced(text, {word: partial(_word, word) for word in _FINDERS})


def hidden(text: str) -> str:
    """A text with everything masked that a check would find in it, its shape still to be seen.

    >>> hidden("Write to jane@corp.co.uk or call +44 20 7946 0958.")
    'Write to j…@… or call +4* ** **** ****.'
    """
    return _replaced(
        text, {"secret": short_key, "email": short_email, "card": masked, "phone": masked}
    )


def short_email(address: str) -> str:
    """An address by its first letter."""
    return f"{address[:1]}…@…"


def short_key(key: str) -> str:
    """A key by its first two characters, which name the service, and its length."""
    head = "" if key[0] == "-" else key[:2]
    return f"{head}… ({len(key)} characters)"


def masked(number: str) -> str:
    """A number without its figures, of which the first stays.

    >>> masked("+1 212 867 5309")
    '+1 *** *** ****'
    """
    first = _DIGITS.search(number)
    at = first.end() if first else 0
    return number[:at] + _DIGITS.sub("*", number[at:])


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


def _word(word: str, _: str) -> str:
    return f"[{word}]"


def _blocks(text: str) -> Iterator[re.Match[str]]:
    return _KEY_BLOCK.finditer(text)


#: In the order of masking: what is part of a longer one comes after it.
_FINDERS: Mapping[str, tuple[Callable[[str], Iterator[re.Match[str]]], ...]] = {
    "secret": (_blocks, secrets),
    "email": (emails,),
    "card": (cards,),
    "phone": (phones,),
}


def _replaced(text: str, short: Mapping[str, Callable[[str], str]]) -> str:
    for word, finders in _FINDERS.items():
        for find in finders:
            at, parts = 0, []
            for found in find(text):
                parts += [text[at : found.start()], short[word](found.group())]
                at = found.end()
            text = "".join([*parts, text[at:]])
    return text
