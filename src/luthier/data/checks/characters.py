"""Traces of bad conversions in a text: wrong encodings, control characters, HTML, base64."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from luthier.core.findings import Code, Finding
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Seen

MOJIBAKE = Code(
    "D071",
    "warning",
    "mojibake: text decoded by the wrong encoding",
    "read the original again as UTF-8, or mend it (ftfy does)",
)
CONTROL = Code("D072", "warning", "control characters", "take them out")
HTML = Code("D073", "warning", "remains of HTML", "take the tags out, put the characters in")
BASE64 = Code("D074", "warning", "a run of base64", "take it out: nothing can be learned from it")
LONG = Code("D075", "warning", "very long words", "put the missing spaces in, or take it out")

_BROKEN = re.compile(
    "\ufffd|ï¿½|ï»¿|â€[\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
    "|Ã[\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122](?![A-ZÀ-Þ])|Â[\u00a0-\u00bf]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_TAGS = re.compile(
    r"</?(?:a|b|blockquote|br|div|em|font|h[1-6]|hr|i|img|li|ol|p|span|strong|table|td|tr|u|ul)"
    r"(?:\s[^<>]{0,200})?/?>|&(?:amp|lt|gt|quot|nbsp|apos|#x?[0-9a-fA-F]{2,6});"
)
#: A text about HTML, or with code in it, is left in peace.
_CODE = re.compile(r"```|<!doctype|<html|<head|<body|<script|\bhtml\b", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9+/]{100,}={0,2}")
_WORD = re.compile("[0-9A-Za-z\u00c0-\u05ff]{60,}")
_SHOWN = 30


class Check(Base):
    """One finding a row of each sort."""

    codes: ClassVar[tuple[Code, ...]] = (MOJIBAKE, CONTROL, HTML, BASE64, LONG)

    @classmethod
    def see(cls, seen: Seen) -> Iterable[Finding]:
        """The row's text."""
        text = seen.whole
        if not text.isascii() and (found := _BROKEN.search(text)):
            yield MOJIBAKE.at(seen.place, f"mojibake: {_around(text, found)}")
        if found := _CONTROL.search(text):
            yield CONTROL.at(seen.place, f"the control character U+{ord(found.group()):04X}")
        found = _TAGS.search(text) if "<" in text or "&" in text else None
        if found and not _CODE.search(text):
            yield HTML.at(seen.place, f"remains of HTML: {found.group()[:_SHOWN]}")
        run = _base64(text)
        if run is not None:
            yield BASE64.at(seen.place, f"{len(run.group()):,} characters of base64")
        elif found := _WORD.search(text):
            yield LONG.at(seen.place, f"a word of {len(found.group()):,} characters")


def _base64(text: str) -> re.Match[str] | None:
    """A run that letters in both cases and figures make no word, no number and no DNA."""
    for found in _RUN.finditer(text):
        run = found.group()
        marks = (str.isupper, str.islower, str.isdigit)
        if all(any(map(mark, run)) for mark in marks):
            return found
    return None


def _around(text: str, found: re.Match[str]) -> str:
    start = max(0, found.start() - 10)
    return "…" + " ".join(text[start : found.end() + 10].split()) + "…"
