"""ROUGE-1, ROUGE-2 and ROUGE-L: overlap of answers with references, in any script."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import ClassVar

from rouge_score import rouge_scorer, tokenizers

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, ratio

_KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}

#: Scripts written without spaces between words: first and last code point of their blocks.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # Han radicals
    (0x3005, 0x3007),  # Han iteration mark and zero
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x3100, 0x312F),  # Bopomofo
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han compatibility
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x20000, 0x3FFFF),  # Han extensions B and later
)


class Config(KindConfig):
    """Settings of ROUGE."""

    kind: str = "rouge"
    stemmer: bool = False
    """Strips English endings (Porter 1980) from words of more than three letters."""


class Tokenizer:
    """Lower-cased words of letters, digits and their marks; unspaced scripts by the character.

    On English text the words are those of rouge-score's own tokenizer, which keeps nothing but
    ``a-z0-9`` and so gives a Chinese sentence a score of 0 with itself.

    >>> Tokenizer().tokenize("It's naïve: 東京 in 2024")
    ['it', 's', 'naïve', '東', '京', 'in', '2024']
    """

    def __init__(self, stemmer: bool = False) -> None:
        self._english = tokenizers.DefaultTokenizer(stemmer)

    def tokenize(self, text: str) -> list[str]:
        """Words of a text."""
        if text.isascii():
            return list(self._english.tokenize(text))
        words = _words(text.lower())
        # One English word by itself is stemmed or not, as it would be in an English text.
        return [stem for word in words for stem in self._stems(word)]

    def _stems(self, word: str) -> list[str]:
        return list(self._english.tokenize(word)) if word.isascii() else [word]


class Metric:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), 0 to 1, a mean over examples.

    With P and R the shares of the answer's and the reference's n-grams (of the longest common
    subsequence for L) that match, ``F1 = 2 P R / (P + R)``; of several references the best
    counts, for each figure by itself. Computed by rouge-score; the one departure is
    :class:`Tokenizer`. NaN where no example has both an answer and a reference.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"answers"})
    names: ClassVar[tuple[str, ...]] = tuple(_KINDS)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        tokenizer = Tokenizer((config or Config()).stemmer)
        self._scorer = rouge_scorer.RougeScorer(list(_KINDS.values()), tokenizer=tokenizer)
        self._rows = Rows(dict.fromkeys(_KINDS, 2))

    def update(self, scored: Scored) -> None:
        """Adds one example; without an answer or a reference it counts for nothing."""
        if scored.answer is None or not scored.references:
            for name in _KINDS:
                self._rows.add(name)
            return
        best = self._scorer.score_multi(scored.references, scored.answer)
        for name, kind in _KINDS.items():
            self._rows.add(name, best[kind].fmeasure, 1)

    def rows(self) -> dict[str, Array]:
        """``[F1, 1]`` of each example, for each name."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 2]`` to mean F1 ``[...]`` between 0 and 1."""
        assert name in self.names, name
        return ratio(totals)


def _words(text: str) -> list[str]:
    words: list[str] = []
    before = "gap"
    for char in unicodedata.normalize("NFC", text):
        sort = _sort(char)
        if sort == "mark":
            # A mark belongs to the letter before it, in every script, and opens no word.
            if before != "gap":
                words[-1] += char
            continue
        if sort == before == "letter":
            words[-1] += char
        elif sort != "gap":
            words.append(char)
        before = sort
    return words


@cache
def _sort(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] == "M":
        return "mark"
    if category[0] not in "LN":
        return "gap"
    alone = any(first <= ord(char) <= last for first, last in _UNSPACED)
    return "alone" if alone else "letter"
