"""Marked spans of a text to words with tags, the characters' places honoured."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.core.errors import DataError
from luthier.core.records import Origin, Tagged
from luthier.data.formats._schemes import Entity, iob2


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``[start, end)`` of a text with their label."""

    start: int
    end: int
    label: str


def words(text: str) -> list[tuple[int, int]]:
    """Where words stand: letters, digits and marks together, every other sign by itself.

    Chinese and Japanese characters, which no space parts, stand by themselves.

    >>> [text[a:b] for text in ["Don't go, 7-11!"] for a, b in words(text)]
    ['Don', "'", 't', 'go', ',', '7', '-', '11', '!']
    """
    found: list[tuple[int, int]] = []
    grows = False
    for index, character in enumerate(text):
        if character.isspace():
            grows = False
        elif unicodedata.category(character)[0] == "M" and found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)  # an accent belongs to what it stands on
        else:
            joins = (character.isalnum() or character == "_") and not _alone(character)
            if joins and grows:
                found[-1] = (found[-1][0], index + 1)
            else:
                found.append((index, index + 1))
            grows = joins
    return found


def tagged(text: str, spans: Sequence[Span], origin: Origin) -> Tagged:
    """The words of a text, those inside of spans tagged (IOB2).

    White space at a span's edges belongs to no word and is left out of it.

    Raises:
        DataError: spans beyond the text, over each other, around nothing, or through a word.
    """
    places = words(text)
    starts = {start: i for i, (start, _) in enumerate(places)}
    ends = {end: i + 1 for i, (_, end) in enumerate(places)}
    found: list[Entity] = []
    before: Span | None = None
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        if not 0 <= span.start < span.end <= len(text):
            raise _fault(span, f"lies outside of the text of {len(text)} characters", origin)
        if before is not None and span.start < before.end:
            other = f"{before.label} [{before.start}, {before.end})"
            raise _fault(span, f"overlaps {other}", origin, "a word has one tag: take one out")
        before = span
        marked = text[span.start : span.end]
        start = span.start + len(marked) - len(marked.lstrip())
        end = span.end - len(marked) + len(marked.rstrip())
        if start >= end:
            raise _fault(span, "marks white space only", origin)
        if start not in starts or end not in ends:
            cut = next(text[a:b] for a, b in places if a < start < b or a < end < b)
            raise _fault(span, f"{text[start:end]!r} cuts the word {cut!r}", origin)
        found.append(Entity(starts[start], ends[end], span.label))
    return Tagged(origin, tuple(text[a:b] for a, b in places), iob2(found, len(places)))


def _alone(character: str) -> bool:
    """Whether a letter of a script without spaces; halves of surrogate pairs are refused before."""
    name = unicodedata.name(character, "")
    return name.startswith(("CJK ", "HIRAGANA", "KATAKANA"))


def _fault(span: Span, cause: str, origin: Origin, cure: str = "") -> DataError:
    return DataError(
        f"the span {span.label} [{span.start}, {span.end}) {cause}",
        str(origin),
        cure or "offsets count characters from 0, the end is one past the last one",
        "span",
    )
