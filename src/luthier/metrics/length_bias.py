"""Length bias: how far an answer's worth goes with its length."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, divide


class Config(KindConfig):
    """Length bias has no settings."""

    kind: str = "length_bias"


class Metric:
    """Pearson's correlation of score and length in tokens, among answers to one prompt.

    ``sum x y / sqrt(sum x^2 sum y^2)`` with ``x`` and ``y`` the deviations from the prompt's mean,
    so that long questions with long answers count for nothing. 1 is a model that pays for length
    alone, 0 one that does not look at it; people do like longer answers somewhat (Singhal et al.
    2023, arXiv 2310.03716). NaN where all scores, or all lengths, are alike.

    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> scores, lengths = np.array([2.0, 1.0], dtype=np.float32), np.array([9, 3])
    >>> metric.update(Scored(Origin("test", 1), scores=scores, lengths=lengths))
    >>> float(metric.reduce("length_correlation", metric.rows()["length_correlation"][0]))
    1.0
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    names: ClassVar[tuple[str, ...]] = ("length_correlation",)
    higher_is_better: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({"length_correlation": 3})

    def update(self, scored: Scored) -> None:
        """Adds one example; without two answers it counts for nothing."""
        if scored.scores is None or scored.lengths is None or len(scored.scores) < 2:
            self._rows.add("length_correlation")
            return
        score, length = (
            np.asarray(values, dtype=np.float64) for values in (scored.scores, scored.lengths)
        )
        x, y = score - score.mean(), length - length.mean()
        self._rows.add("length_correlation", x @ y, x @ x, y @ y)

    def rows(self) -> dict[str, Array]:
        """``[sum x y, sum x x, sum y y]`` of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 3]`` to correlations ``[...]``."""
        assert name in self.names, name
        return divide(totals[..., 0], np.sqrt(totals[..., 1] * totals[..., 2]), np.nan)
