"""Lengths gathered into ranges that people can read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Bin:
    """Lengths from ``low`` to ``high``, both included; ``high`` is ``None`` for all above."""

    low: int
    high: int | None
    count: int

    def __str__(self) -> str:
        if self.high is None:
            return f"above {self.low - 1:,}"
        return f"{self.low:,} to {self.high:,}" if self.high > self.low else f"{self.low:,}"


def bins(lengths: npt.NDArray[np.int64], count: int, limit: int | None = None) -> list[Bin]:
    """Every length in one range, about ``count`` of which hold 95 in 100 of them.

    A document of a million tokens must not squeeze all others into the first range.

    Args:
        lengths: ascending, one at least.
        count: ranges of one width.
        limit: a length at which one range ends and another begins, if any go beyond it.

    >>> [str(each) for each in bins(np.array([1, 2, 3, 4, 9]), 2, limit=3)]
    ['1 to 3', '4 to 5', '6 to 10']
    """
    shortest, most_of_them = int(lengths[0]), float(np.quantile(lengths, 0.95))
    step = nice((most_of_them - shortest) / count)
    edges: list[int] = ((np.arange(count + 1) + (shortest - 1) // step) * step).tolist()
    if limit is not None and edges[0] < limit < lengths[-1]:
        edges = sorted({*edges, limit})
    upto = np.searchsorted(lengths, edges, side="right").tolist()
    found = [
        Bin(low + 1, high, after - before)
        for (low, high), (before, after) in zip(pairwise(edges), pairwise(upto), strict=True)
    ]
    if beyond := len(lengths) - upto[-1]:
        return [*found, Bin(edges[-1] + 1, None, beyond)]
    while not found[-1].count:
        found.pop()
    return found


def nice(step: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 and so on.

    >>> [nice(x) for x in (0.3, 1.5, 3, 12, 51)]
    [1, 2, 5, 20, 100]
    """
    scale = 1
    while True:
        for factor in (1, 2, 5):
            if factor * scale >= step:
                return factor * scale
        scale *= 10
