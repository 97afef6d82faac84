"""Rows in another language or script than nearly all others."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from luthier.core.findings import Code, Finding
from luthier.core.records import SourceTarget
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Known, Seen

MIXED = Code(
    "D070",
    "warning",
    "mixed languages or scripts",
    "take them out unless the model is to speak them; measure each language by itself",
)
HOMOGLYPH = Code(
    "D076",
    "warning",
    "a word of letters of two scripts",
    "write it in one script: look-alike letters become other tokens",
)
_SCRIPTS = {
    "Greek": "\u0370-\u03ff",
    "Cyrillic": "\u0400-\u052f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
    "Korean": "\uac00-\ud7af",
    "Japanese": "\u3040-\u30ff",
    "Chinese": "\u4e00-\u9fff",
}
_LETTERS = {name: re.compile(f"[{inside}]") for name, inside in _SCRIPTS.items()}
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_TWO = re.compile(
    "[A-Za-z]{2,}[\u0430-\u044f]+[A-Za-z]+|[\u0430-\u044f]{2,}[A-Za-z]+[\u0430-\u044f]+"
)
#: Words that hardly any text of their language is without, and that few others have.
_COMMON = {
    "English": "the of and to is that it was for with you this have are",
    "Spanish": "el los las una por con para que está del pero muy como también",
    "French": "les des une est dans pour que qui avec sur pas vous nous était",
    "German": "der die das und ist nicht ein eine mit von auf den für ich",
    "Italian": "il gli che una per non sono della anche più questo nel è di",
    "Portuguese": "os uma não com para que dos das mas como você muito ao são",
    "Dutch": "het een van en dat niet zijn met voor maar ook op wat ik",
}
_WORDS: dict[str, set[str]] = {}
for _language, _words in _COMMON.items():
    for _word in _words.split():
        _WORDS.setdefault(_word, set()).add(_language)
_ALPHABETIC = re.compile("[a-z\u00df-\u024f]+")
#: Characters looked at; common words needed, and how many different ones; the share of the rows
#: that makes a language the main one.
_LOOKED, _HITS, _DIFFERENT, _MAIN = 2_000, 4, 3, 0.8
_ROWS = 10


class Check(Base):
    """A row's script is that of most of its letters; a language is told by its common words.

    Nothing is said of short texts, and nothing of translations.
    """

    codes: ClassVar[tuple[Code, ...]] = (MIXED, HOMOGLYPH)

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._names: dict[str, int] = {}
        self._rows = array("I")
        self._told = array("B")

    @classmethod
    def see(cls, seen: Seen) -> Iterable[Finding]:
        """A word of letters of two scripts."""
        text = seen.whole
        if isinstance(seen.record, SourceTarget) or text.isascii():
            return
        if found := _TWO.search(text):
            yield HOMOGLYPH.at(seen.place, f"Latin and Cyrillic letters in '{found.group()}'")

    @classmethod
    def digest(cls, rows: Sequence[Seen]) -> Any:
        """Each row's language, or its script, where it is told."""
        told = ((s, language(s.whole[:_LOOKED])) for s in rows if _tells(s))
        return [(seen.number, name) for seen, name in told if name]

    def take(self, digest: Any) -> Iterable[tuple[int, Finding]]:
        """Notes them."""
        for number, name in digest:
            self._rows.append(number)
            self._told.append(self._names.setdefault(name, len(self._names)))
        return ()

    def close(self) -> Iterable[Finding]:
        """The rows of the few, or how the rows are shared where there are no few."""
        counts = Counter(self._told)
        if len(counts) < 2 or len(self._told) < _ROWS:
            return
        names = list(self._names)
        (main, most), *_ = counts.most_common(1)
        if most < _MAIN * len(self._told):
            shares = [f"{names[n]} {c / len(self._told):.0%}" for n, c in counts.most_common(4)]
            place = self.known.places.at(int(self._rows[0])).rpartition(":")[0]
            yield MIXED.at(place, f"the rows are in several languages: {', '.join(shares)}")
            return
        for row, told in zip(self._rows, self._told, strict=True):
            if told != main:
                message = f"in {names[told]}, where most rows are in {names[main]}"
                yield MIXED.at(self.known.places.at(row), message)


def _tells(seen: Seen) -> bool:
    return bool(seen.whole) and not isinstance(seen.record, SourceTarget)


def language(text: str) -> str:
    """A text's language or script; empty where nothing tells it.

    >>> language("The cat is on the mat and it was happy that you are here")
    'English'
    >>> language("Кошка сидит на окне и смотрит на улицу")
    'Cyrillic'
    """
    if not text.isascii():
        latin = len(_LATIN.findall(text))
        counts = {name: len(each.findall(text)) for name, each in _LETTERS.items()}
        most = max(counts, key=lambda name: counts[name])
        if counts[most] > max(8, latin):
            return "Japanese" if counts["Japanese"] > 4 and most == "Chinese" else most
    hits: Counter[str] = Counter()
    met: dict[str, set[str]] = {}
    for word in _ALPHABETIC.findall(text.lower()):
        for each in _WORDS.get(word, ()):
            hits[each] += 1
            met.setdefault(each, set()).add(word)
    ranked = hits.most_common(2)
    if not ranked or ranked[0][1] < _HITS or len(met[ranked[0][0]]) < _DIFFERENT:
        return ""
    return ranked[0][0] if len(ranked) == 1 or ranked[0][1] >= 2 * ranked[1][1] else ""
