"""Calibration: whether a classifier is as often right as its probabilities say."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._classes import true_and_said
from luthier.metrics._rows import Array, Rows, ratio
from luthier.ops.calibration import BINS, binned, expected_error

#: Probabilities of true classes are taken for no less: one certain mistake is not infinitely bad.
_LEAST = 1e-12


class Config(KindConfig):
    """Calibration has no settings."""

    kind: str = "calibration"


class Metric:
    """Expected calibration error, Brier score and log loss; 0 is best of each.

    ``calibration_error`` is ``sum_b |right_b - confidence_b| / R`` over 15 bins of confidence (Guo
    et al. 2017, arXiv 1706.04599). Of one label the confidence is the likeliest class's
    probability, of several labels every class's own is held against whether it is true.
    ``brier_score`` is the squared distance from the truth (Brier 1950), ``log_loss`` the truth's
    negative log-probability, both summed over an example's classes.

    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> chances = np.array([0.25, 0.75], dtype=np.float32)
    >>> metric.update(Scored(Origin("test", 1), probabilities=chances, label=1))
    >>> float(metric.reduce("brier_score", metric.rows()["brier_score"].sum(axis=0)))
    0.125
    """

    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    names: ClassVar[tuple[str, ...]] = ("calibration_error", "brier_score", "log_loss")
    higher_is_better: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({"calibration_error": 3 * BINS, "brier_score": 2, "log_loss": 2})

    def update(self, scored: Scored) -> None:
        """Adds one example; without probabilities or a class it counts for nothing."""
        found = true_and_said(scored)
        if found is None:
            for name in self.names:
                self._rows.add(name)
            return
        assert scored.probabilities is not None
        chances = np.asarray(scored.probabilities, dtype=np.float64)
        truth = np.zeros_like(chances)
        truth[list(found[0])] = 1.0
        if isinstance(scored.label, tuple):
            bins = binned(chances, truth)
            loss = -(truth * _log(chances) + (1 - truth) * _log(1 - chances)).sum()
        else:
            bins = binned([chances.max()], [float(found[0] == found[1])])
            loss = -(truth * _log(chances)).sum()
        self._rows.add("calibration_error", *bins.reshape(-1).tolist())
        self._rows.add("brier_score", float(((chances - truth) ** 2).sum()), 1)
        self._rows.add("log_loss", float(loss), 1)

    def rows(self) -> dict[str, Array]:
        """Counts, confidence and right ones of each bin; ``[score, 1]`` of the other two."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums to values; see the class."""
        assert name in self.names, name
        if name != "calibration_error":
            return ratio(totals)
        return expected_error(totals.reshape(*totals.shape[:-1], BINS, 3))


def _log(chances: Array) -> Array:
    logs: Array = np.log(np.maximum(chances, _LEAST))
    return logs
