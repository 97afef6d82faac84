"""Precision, recall and F1 over whole entities, as conlleval and seqeval count them."""

from __future__ import annotations

from typing import ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, divide


class Config(KindConfig):
    """Entities have no settings."""

    kind: str = "entities"


class Metric:
    """Precision, recall and F1 of entities: right where first word, last word and type all are.

    With ``h`` entities rightly marked, ``s`` marked and ``t`` true, over all examples together
    (micro): ``precision = h / s``, ``recall = h / t``, ``F1 = 2 h / (s + t)`` (Tjong Kim Sang and
    De Meulder 2003, arXiv cs/0306050), and 0 where there is nothing to divide by. NaN without
    examples.

    >>> from luthier.core.records import Origin
    >>> from luthier.core.tags import Entity
    >>> metric = Metric()
    >>> true, said = (Entity(0, 2, "PER"), Entity(3, 4, "LOC")), (Entity(0, 2, "PER"),)
    >>> metric.update(Scored(Origin("test", 1), spans=true, said_spans=said))
    >>> {n: round(float(metric.reduce(n, r.sum(0))), 4) for n, r in metric.rows().items()}
    {'entity_f1': 0.6667, 'entity_precision': 1.0, 'entity_recall': 0.5}
    """

    needs: ClassVar[frozenset[str]] = frozenset({"spans"})
    names: ClassVar[tuple[str, ...]] = ("entity_f1", "entity_precision", "entity_recall")
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({"entities": 4})

    def update(self, scored: Scored) -> None:
        """Adds one example; without true and marked entities it counts for nothing."""
        true, said = scored.spans, scored.said_spans
        if true is None or said is None:
            self._rows.add("entities")
        else:
            self._rows.add("entities", len(set(true) & set(said)), len(said), len(true), 1)

    def rows(self) -> dict[str, Array]:
        """``[h, s, t, 1]`` of each example, one array for all names.

        The 1 lets an example without any entity count among the rows.
        """
        return dict.fromkeys(self.names, self._rows.arrays()["entities"])

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 4]`` to shares ``[...]`` between 0 and 1."""
        assert name in self.names, name
        hits, said, true, rows = (totals[..., i] for i in range(4))
        above = {"entity_f1": 2 * hits}.get(name, hits)
        below = {"entity_f1": said + true, "entity_precision": said}.get(name, true)
        figures = divide(above, below, 0.0)
        # Without any example there is nothing to say.
        return figures + divide(rows * 0, rows, float("nan"))
