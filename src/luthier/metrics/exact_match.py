"""Exact match: the share of answers that equal a reference, once both are normalised."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, ratio

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_QUOTES = "\"'`“”‘’«»「」『』"
_STOPS = ".,;:!?…。，、；：！？"


class Config(KindConfig):
    """Settings of exact match."""

    kind: str = "exact_match"
    normalise: Literal["none", "light", "squad"] = "light"
    """``none`` (outer white space only), ``light`` (composed Unicode, case, runs of white space,
    outer quotes and closing stops; ``3.5``, ``-5`` and ``C#`` keep their meaning), or ``squad``
    (English: case, all punctuation, articles, white space)."""


class Metric:
    """Share of answers that equal any of their references after normalisation.

    ``squad`` is the normalisation of Rajpurkar et al. 2016 (arXiv:1606.05250). NaN where no
    example has both an answer and a reference.

    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> metric.update(Scored(Origin("test", 1), answer="“Paris”.", references=("paris",)))
    >>> metric.rows()["exact_match"].tolist()
    [[1.0, 1.0]]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"answers"})
    names: ClassVar[tuple[str, ...]] = ("exact_match",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self._normalise = _NORMALISERS[(config or Config()).normalise]
        self._rows = Rows({"exact_match": 2})

    def update(self, scored: Scored) -> None:
        """Adds one example; without an answer or a reference it counts for nothing."""
        if scored.answer is None or not scored.references:
            self._rows.add("exact_match")
            return
        answer = self._normalise(scored.answer)
        hit = any(answer == self._normalise(reference) for reference in scored.references)
        self._rows.add("exact_match", hit, 1)

    def rows(self) -> dict[str, Array]:
        """``[match, 1]`` of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 2]`` to shares ``[...]`` between 0 and 1."""
        assert name in self.names, name
        return ratio(totals)


def _light(text: str) -> str:
    plain = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    trimmed = plain.strip(_QUOTES + " ").rstrip(_STOPS + _QUOTES + " ")
    # An answer of nothing but marks ("?") must not equal every other such answer.
    return trimmed or plain


def _squad(text: str) -> str:
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


_NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "none": str.strip,
    "light": _light,
    "squad": _squad,
}
