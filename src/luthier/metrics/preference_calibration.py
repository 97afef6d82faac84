"""Preference calibration: whether a margin says how likely people are to agree."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._answers import differences
from luthier.metrics._rows import Array, Rows, ratio
from luthier.ops.calibration import BINS, binned, expected_error


class Config(KindConfig):
    """Preference calibration has no settings."""

    kind: str = "preference_calibration"


class Metric:
    """Expected calibration error and log loss of ``sigmoid(difference)``; 0 is best of both.

    The probability that the Bradley-Terry model gives to one answer being preferred is held
    against which one was, over 15 bins of confidence (Guo et al. 2017, arXiv 1706.04599). The log
    loss of scores that are all alike is ``ln 2``. A pair told as a tie is half right.

    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> metric.update(Scored(Origin("test", 1), scores=np.zeros(2, dtype=np.float32)))
    >>> totals = metric.rows()["preference_log_loss"].sum(0)
    >>> round(float(metric.reduce("preference_log_loss", totals)), 4)
    0.6931
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    names: ClassVar[tuple[str, ...]] = ("preference_calibration_error", "preference_log_loss")
    higher_is_better: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({self.names[0]: 3 * BINS, self.names[1]: 2})

    def update(self, scored: Scored) -> None:
        """Adds one example; without two answers it counts for nothing."""
        apart = differences(scored.scores)
        if not len(apart):
            for name in self.names:
                self._rows.add(name)
            return
        # Whichever is taken to be better: its probability, and whether it was.
        sure = 1 / (1 + np.exp(-np.abs(apart)))
        bins = binned(sure, (apart > 0) + (apart == 0) / 2) / len(apart)
        self._rows.add(self.names[0], *bins.reshape(-1).tolist())
        self._rows.add(self.names[1], float(np.logaddexp(0, -apart).mean()), 1)

    def rows(self) -> dict[str, Array]:
        """Pairs, summed confidence and right ones of each bin; ``[log loss, 1]``."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums to values ``[...]``."""
        assert name in self.names, name
        if name == self.names[1]:
            return ratio(totals)
        return expected_error(totals.reshape(*totals.shape[:-1], BINS, 3))
