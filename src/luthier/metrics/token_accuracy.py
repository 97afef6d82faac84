"""Token accuracy: the share of target tokens that the model finds most likely."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, ratio


class Config(KindConfig):
    """Token accuracy has no settings."""

    kind: str = "token_accuracy"


class Metric:
    """Share of target tokens whose most likely prediction is right, given all text before them.

    ``sum correct / tokens``, over all tokens together; NaN where there is none.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})
    names: ClassVar[tuple[str, ...]] = ("token_accuracy",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({"token_accuracy": 2})

    def update(self, scored: Scored) -> None:
        """Adds one example; where no token was judged, it counts for nothing."""
        if scored.correct is None:
            self._rows.add("token_accuracy")
        else:
            right = int(np.count_nonzero(scored.correct))
            self._rows.add("token_accuracy", right, len(scored.correct))

    def rows(self) -> dict[str, Array]:
        """``[correct, tokens]`` of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 2]`` to shares ``[...]`` between 0 and 1."""
        assert name in self.names, name
        return ratio(totals)
