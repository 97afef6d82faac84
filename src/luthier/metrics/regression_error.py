"""Squared and absolute error of a predicted number."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._classes import numbers
from luthier.metrics._rows import Array, divide


class Config(KindConfig):
    """Errors of a regression have no settings."""

    kind: str = "regression_error"


class Metric:
    """Mean squared error and mean absolute error of predicted numbers.

    With d the prediction less the truth: ``sum d^2 / n``, in the label's unit squared, and
    ``sum |d| / n``, in the label's own unit, which large misses sway less. NaN without examples.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    names: ClassVar[tuple[str, ...]] = ("mean_squared_error", "mean_absolute_error")
    higher_is_better: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows: list[tuple[float, float, float]] = []

    def update(self, scored: Scored) -> None:
        """Adds one example; without a predicted and a true number it counts for nothing."""
        found = numbers(scored)
        if found is None:
            self._rows.append((0.0, 0.0, 0.0))
            return
        miss = found[1] - found[0]
        self._rows.append((miss * miss, abs(miss), 1.0))

    def rows(self) -> dict[str, Array]:
        """``[d^2, |d|, 1]`` of each example, one array for both names."""
        rows = np.array(self._rows, dtype=np.float64).reshape(len(self._rows), 3)
        return dict.fromkeys(self.names, rows)

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 3]`` to errors ``[...]``, 0 or more."""
        return divide(totals[..., self.names.index(name)], totals[..., 2], np.nan)
