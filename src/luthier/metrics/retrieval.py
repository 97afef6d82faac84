"""Retrieval: where an anchor finds its positive among all held-out texts."""

from __future__ import annotations

import math
from typing import ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, ratio

#: Places that count, of each name.
_DEPTHS = {"recall_1": 1, "recall_5": 5, "recall_10": 10}
#: Places deeper than this add nothing to nDCG.
_NDCG = 10


class Config(KindConfig):
    """Retrieval has no settings."""

    kind: str = "retrieval"


class Metric:
    """Recall at 1, 5 and 10, mean reciprocal rank, and nDCG at 10, each 0 to 1.

    With one right text for every anchor, at rank ``r``: recall at ``k`` is ``r <= k``, the
    reciprocal rank ``1 / r``, and nDCG ``1 / log2(r + 1)`` (Järvelin & Kekäläinen 2002).

    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> for line, rank in enumerate((1, 4), 1):
    ...     metric.update(Scored(Origin("test", line), rank=rank))
    >>> float(metric.reduce("mrr", metric.rows()["mrr"].sum(axis=0)))
    0.625
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ranks"})
    names: ClassVar[tuple[str, ...]] = (*_DEPTHS, "mrr", "ndcg_10")
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows(dict.fromkeys(self.names, 2))

    def update(self, scored: Scored) -> None:
        """Adds one example; without a rank it counts for nothing."""
        rank = scored.rank
        if rank is None:
            for name in self.names:
                self._rows.add(name)
            return
        for name, depth in _DEPTHS.items():
            self._rows.add(name, rank <= depth, 1)
        self._rows.add("mrr", 1 / rank, 1)
        self._rows.add("ndcg_10", 1 / math.log2(rank + 1) if rank <= _NDCG else 0.0, 1)

    def rows(self) -> dict[str, Array]:
        """``[score, 1]`` of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 2]`` to means ``[...]``."""
        assert name in self.names, name
        return ratio(totals)
