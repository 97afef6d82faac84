"""Accuracy: the share of examples whose label, or whole set of labels, is right."""

from __future__ import annotations

from typing import ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._classes import true_and_said
from luthier.metrics._rows import Array, Rows, ratio


class Config(KindConfig):
    """Accuracy has no settings."""

    kind: str = "accuracy"


class Metric:
    """Share of examples labelled right, 0 to 1.

    Of one label: the most likely class is the true one. Of several labels: the labels with a
    probability above 0.5 are exactly the true ones (subset accuracy); a label too many or too few
    makes the example wrong, and no label at all is right where none is true. NaN without examples.

    >>> import numpy as np
    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> chances = np.array([0.2, 0.8], dtype=np.float32)
    >>> metric.update(Scored(Origin("test", 1), probabilities=chances, label=1))
    >>> metric.update(Scored(Origin("test", 2), probabilities=chances, label=(0, 1)))
    >>> metric.rows()["accuracy"].tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    names: ClassVar[tuple[str, ...]] = ("accuracy",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({"accuracy": 2})

    def update(self, scored: Scored) -> None:
        """Adds one example; without probabilities or a class it counts for nothing."""
        found = true_and_said(scored)
        if found is None:
            self._rows.add("accuracy")
        else:
            self._rows.add("accuracy", found[0] == found[1], 1)

    def rows(self) -> dict[str, Array]:
        """``[right, 1]`` of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 2]`` to shares ``[...]`` between 0 and 1."""
        assert name in self.names, name
        return ratio(totals)
