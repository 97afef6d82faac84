"""chrF and chrF++: character (and word) n-gram F-score of answers, as sacrebleu computes it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sacrebleu.metrics.chrf import CHRF

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, divide

#: Name -> order of word n-grams beside the character n-grams.
_WORDS = {"chrf": 0, "chrf_pp": 2}
_FACTOR = CHRF.BETA**2


class Config(KindConfig):
    """Settings of chrF."""

    kind: str = "chrf"
    lowercase: bool = False
    """Whether case is ignored."""
    whitespace: bool = False
    """Whether spaces count among the characters."""


class Metric:
    """chrF (Popović 2015) and chrF++ (Popović 2017) over the whole corpus, 0 to 100.

    With P and R the mean precision and recall over character n-grams of orders 1 to 6 (and word
    n-grams of orders 1 and 2 for ``chrf_pp``) that both sides have,
    ``chrF = 100 (1 + b^2) P R / (b^2 P + R)``, b = 2. Of several references the best counts.
    Departure from sacrebleu: NaN, not 0, where nothing could be compared.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"answers"})
    names: ClassVar[tuple[str, ...]] = tuple(_WORDS)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        settings = config or Config()
        self._scorers = {
            name: CHRF(
                word_order=order, lowercase=settings.lowercase, whitespace=settings.whitespace
            )
            for name, order in _WORDS.items()
        }
        self._rows = Rows({name: 3 * (CHRF.CHAR_ORDER + order) for name, order in _WORDS.items()})

    def update(self, scored: Scored) -> None:
        """Adds one example; without an answer or a reference it counts for nothing."""
        for name, scorer in self._scorers.items():
            if scored.answer is None or not scored.references:
                self._rows.add(name)
                continue
            # The counts are behind no public name; sacrebleu's own significance tests read them
            # here too, and a parity test holds this to the public corpus score.
            references = [[reference] for reference in scored.references]
            (counts,) = scorer._extract_corpus_statistics([scored.answer], references)
            self._rows.add(name, *counts)

    def rows(self) -> dict[str, Array]:
        """``[answer, reference, match]`` n-grams of each order in turn, of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 3 * orders]`` to values ``[...]`` between 0 and 100."""
        assert name in self.names, name
        orders = totals.reshape(*totals.shape[:-1], totals.shape[-1] // 3, 3)
        answer, reference, match = orders[..., 0], orders[..., 1], orders[..., 2]
        # Only orders that both sides have are averaged over; the others have no match to add.
        count = np.asarray(((answer > 0) & (reference > 0)).sum(axis=-1), dtype=np.float64)
        precision = divide(divide(match, answer, 0.0).sum(axis=-1), count, 0.0)
        recall = divide(divide(match, reference, 0.0).sum(axis=-1), count, 0.0)
        below = _FACTOR * precision + recall
        score = 100.0 * divide((1 + _FACTOR) * precision * recall, below, 0.0)
        return np.where(np.any(totals > 0, axis=-1), score, np.nan)
