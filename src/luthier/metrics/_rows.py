"""Rows of summable figures, one an example: what every metric keeps and a bootstrap resamples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Rows:
    """Rows of a fixed width for each name of a metric, in the order of the updates.

    Args:
        widths: name -> figures a row.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._widths = dict(widths)
        self._rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in widths}

    def add(self, name: str, *figures: float) -> None:
        """One example's row.

        No figures at all make a row of zeros: the example counts for nothing, and still keeps
        its place, so that the rows of two models stay paired.
        """
        width = self._widths[name]
        assert len(figures) in (0, width), f"{name}: {len(figures)} figures, not {width}"
        self._rows[name].append(tuple(float(figure) for figure in figures) or (0.0,) * width)

    def arrays(self) -> dict[str, Array]:
        """``[examples, k]`` a name; ``[0, k]`` before the first update."""
        return {
            name: np.array(rows, dtype=np.float64).reshape(len(rows), self._widths[name])
            for name, rows in self._rows.items()
        }


def ratio(totals: Array) -> Array:
    """First column over second, ``[..., 2] -> [...]``; NaN where there is nothing to divide by."""
    return divide(totals[..., 0], totals[..., 1], np.nan)


def divide(above: Array, below: Array, empty: float) -> Array:
    """``above / below`` without a warning, and ``empty`` where ``below`` is zero."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), empty, dtype=np.float64)
    np.divide(above, below, out=out, where=below != 0)
    return out
