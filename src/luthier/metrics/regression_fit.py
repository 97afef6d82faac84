"""How well predicted numbers follow the true ones: Pearson's r and the coefficient R²."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._classes import numbers
from luthier.metrics._rows import Array, divide

#: A variance below this share of the mean square is what rounding leaves of none.
_NOTHING = 1e-12


class Config(KindConfig):
    """The fit of a regression has no settings."""

    kind: str = "regression_fit"


class Metric:
    """Pearson's correlation and R² of predicted numbers x with true ones y.

    ``pearson = cov(x, y) / sqrt(var(x) var(y))`` (Pearson 1895), -1 to 1, blind to scale and
    offset; ``r2 = 1 - sum (x - y)^2 / sum (y - mean y)^2`` (Wright 1921), 1 at best, 0 for always
    saying the mean, below 0 for worse than that. Departure from scikit-learn: NaN, not 0 or 1,
    where all true numbers (for ``pearson``, or all predictions) are the same.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    names: ClassVar[tuple[str, ...]] = ("pearson", "r2")
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows: list[tuple[float, ...]] = []

    def update(self, scored: Scored) -> None:
        """Adds one example; without a predicted and a true number it counts for nothing."""
        found = numbers(scored)
        if found is None:
            self._rows.append((0.0,) * 7)
            return
        y, x = found
        self._rows.append((1.0, x, y, x * x, y * y, x * y, (x - y) ** 2))

    def rows(self) -> dict[str, Array]:
        """``[1, x, y, x^2, y^2, x y, (x - y)^2]`` of each example, one array for both names."""
        rows = np.array(self._rows, dtype=np.float64).reshape(len(self._rows), 7)
        return dict.fromkeys(self.names, rows)

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 7]`` to values ``[...]`` of at most 1."""
        assert name in self.names, name
        n, x, y, xx, yy, xy, missed = (totals[..., column] for column in range(7))
        spread_y = _spread(n, y, yy)
        if name == "r2":
            return 1.0 - divide(n * missed, spread_y, np.nan)
        below = np.sqrt(_spread(n, x, xx)) * np.sqrt(spread_y)
        return np.clip(divide(n * xy - x * y, below, np.nan), -1.0, 1.0)


def _spread(n: Array, total: Array, squares: Array) -> Array:
    """``n^2`` times the variance; exactly 0 where all numbers are the same."""
    spread = n * squares - total * total
    return np.where(spread > _NOTHING * n * squares, spread, 0.0)
