"""Preference: how often, and by how much, the better answer is worth more."""

from __future__ import annotations

from typing import ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._answers import differences
from luthier.metrics._rows import Array, Rows, ratio


class Config(KindConfig):
    """Preference has no settings."""

    kind: str = "preference"


class Metric:
    """Share of pairs told right, and the mean difference of their two scores.

    A ranking counts as the mean of all its pairs; two answers worth the same are half right. For a
    model that is compared with what it was at step 0 (DPO), that model itself has told nothing
    yet: one half, and a margin of 0.

    >>> import numpy as np
    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> metric.update(Scored(Origin("test", 1), scores=np.array([2.0, 0.5], dtype=np.float32)))
    >>> metric.rows()["preference_margin"].tolist()
    [[1.5, 1.0]]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    names: ClassVar[tuple[str, ...]] = ("preference_accuracy", "preference_margin")
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows(dict.fromkeys(self.names, 2))

    def update(self, scored: Scored) -> None:
        """Adds one example; without two answers it counts for nothing."""
        apart = differences(scored.scores)
        if not len(apart):
            for name in self.names:
                self._rows.add(name)
            return
        right = (apart > 0).mean() + (apart == 0).mean() / 2
        self._rows.add("preference_accuracy", float(right), 1)
        self._rows.add("preference_margin", float(apart.mean()), 1)

    def rows(self) -> dict[str, Array]:
        """``[share right, 1]`` and ``[margin, 1]`` of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 2]`` to means ``[...]``."""
        assert name in self.names, name
        return ratio(totals)
