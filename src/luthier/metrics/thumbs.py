"""Thumbs: by how much answers that were liked are worth more than those that were not."""

from __future__ import annotations

from typing import ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, divide


class Config(KindConfig):
    """Thumbs have no settings."""

    kind: str = "thumbs"


class Metric:
    """Mean score of liked answers less the mean score of the others; NaN without either kind.

    >>> import numpy as np
    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> for line, (score, good) in enumerate(((0.5, 1), (-0.25, 0)), 1):
    ...     score = np.array([score], dtype=np.float32)
    ...     metric.update(Scored(Origin("test", line), scores=score, label=good))
    >>> float(metric.reduce("thumb_gap", metric.rows()["thumb_gap"].sum(axis=0)))
    0.75
    """

    needs: ClassVar[frozenset[str]] = frozenset({"thumbs"})
    names: ClassVar[tuple[str, ...]] = ("thumb_gap",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({"thumb_gap": 4})

    def update(self, scored: Scored) -> None:
        """Adds one example; without a score and a thumb it counts for nothing."""
        if scored.scores is None or scored.label not in (0, 1):
            self._rows.add("thumb_gap")
            return
        score = float(scored.scores[0])
        liked = (score, 1.0, 0.0, 0.0) if scored.label else (0.0, 0.0, score, 1.0)
        self._rows.add("thumb_gap", *liked)

    def rows(self) -> dict[str, Array]:
        """``[score, 1, 0, 0]`` of a liked answer, ``[0, 0, score, 1]`` of another."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 4]`` to differences ``[...]``."""
        assert name in self.names, name
        liked = divide(totals[..., 0], totals[..., 1], float("nan"))
        return liked - divide(totals[..., 2], totals[..., 3], float("nan"))
