"""F1, precision and recall averaged over classes, as scikit-learn computes them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._classes import Classes, true_and_said
from luthier.metrics._rows import Array, divide


class Config(KindConfig):
    """F1 has no settings."""

    kind: str = "f1"


class Metric:
    """F1, precision and recall of each class, averaged over classes; 0 to 1.

    With ``h`` examples rightly said to be of a class, ``s`` said to be and ``t`` truly of it:
    ``precision = h / s``, ``recall = h / t``, ``F1 = 2 h / (s + t)`` (van Rijsbergen 1979), and 0
    where there is nothing to divide by. ``macro`` is the plain mean over classes, so that a rare
    class counts as much as a frequent one; ``weighted`` weighs each class by ``t``. Of several
    labels, those with a probability above 0.5 are said.

    ``macro`` runs over the classes that are true or said at least once among the examples, of a
    bootstrap's resample as of all: scikit-learn's rule for one label. Departures: of several
    labels, too, a label neither true nor said is left out, which scikit-learn counts as 0; NaN
    where no example, or for ``weighted`` no true label, is there.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    names: ClassVar[tuple[str, ...]] = (
        "f1_macro",
        "f1_weighted",
        "precision_macro",
        "precision_weighted",
        "recall_macro",
        "recall_weighted",
    )
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._seen: list[tuple[Classes, Classes] | None] = []
        self._classes = 0

    def update(self, scored: Scored) -> None:
        """Adds one example; without probabilities or a class it counts for nothing."""
        found = true_and_said(scored)
        self._seen.append(found)
        if found is not None:
            assert scored.probabilities is not None
            self._classes = max(self._classes, len(scored.probabilities))

    def rows(self) -> dict[str, Array]:
        """``[h of each class, s of each class, t of each class, 1]`` of each example.

        One array for all names: a bootstrap then sums it once. The 1 lets an example with no
        label, true or said, count among the rows.
        """
        rows = np.zeros((len(self._seen), 3 * self._classes + 1))
        for row, found in zip(rows, self._seen, strict=True):
            if found is not None:
                true, said = (np.array(classes, dtype=np.int64) for classes in found)
                row[np.intersect1d(true, said)] = 1
                row[self._classes + said] = 1
                row[2 * self._classes + true] = 1
                row[-1] = 1
        return dict.fromkeys(self.names, rows)

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 3 * classes + 1]`` to values ``[...]`` between 0 and 1."""
        assert name in self.names, name
        classes = totals[..., :-1].reshape(*totals.shape[:-1], 3, totals.shape[-1] // 3)
        hits, said, true = classes[..., 0, :], classes[..., 1, :], classes[..., 2, :]
        kind, _, mean = name.partition("_")
        if kind == "precision":
            figures = divide(hits, said, 0.0)
        elif kind == "recall":
            figures = divide(hits, true, 0.0)
        else:
            figures = divide(2 * hits, said + true, 0.0)
        weights = true if mean == "weighted" else (said + true > 0).astype(np.float64)
        return divide((figures * weights).sum(axis=-1), weights.sum(axis=-1), np.nan)
