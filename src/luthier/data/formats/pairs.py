"""Two texts that belong together, and texts that do not: anchor/positive/negative and the like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Pair, Record, Row
from luthier.data.formats._fields import LABELS, checked, need, pick

_ANCHORS = ("anchor", "query", "sentence1")
_POSITIVES = ("positive", "pos", "passage", "sentence2")
_NEGATIVES = ("negative", "negatives", "neg", "hard_negative", "hard_negatives")


class Config(KindConfig):
    """Settings of pairs: none."""

    kind: str = "pairs"


class Format:
    """Rows with an anchor, a positive and any number of hard negatives to :class:`Pair`.

    Negatives are a column of text or of lists of texts, or several columns, ``negative_1`` and so
    on. Two sentences with a label are no such pair: the label says how they belong together.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Pair,)
    fields: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negative")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the anchor, the positive and the negatives."""
        anchor, positive = pick(fields, _ANCHORS), pick(fields, _POSITIVES)
        if anchor is None or positive is None or any(name in fields for name in (*LABELS, "score")):
            return None
        if not all(isinstance(fields[name], str | None) for name in (anchor, positive)):
            return None
        said = [f"anchor='{anchor}'", f"positive='{positive}'"]
        return ", ".join([*said, *(f"negative='{name}'" for name in _columns(fields))])

    def read(self, row: Row) -> Record:
        """The texts of a row."""
        names = need(row, _ANCHORS, "anchor"), need(row, _POSITIVES, "positive")
        anchor, positive = (
            checked(row.fields[name], f"'{name}'", what, row.origin)
            for name, what in zip(names, ("anchor", "positive"), strict=True)
        )
        negatives: list[str] = []
        for name in _columns(row.fields):
            value = row.fields[name]
            several = isinstance(value, list | tuple)
            for place, each in enumerate(value if several else [value]):
                where = f"{name}[{place}]" if several else f"'{name}'"
                negatives.append(checked(each, where, "negative", row.origin))
        return Pair(row.origin, anchor, positive, tuple(negatives))


def _columns(fields: Mapping[str, Any]) -> list[str]:
    """The columns of negatives that say something, in the row's order."""
    known = [
        name
        for name in fields
        if name in _NEGATIVES or (name.startswith("negative_") and name[9:].isdecimal())
    ]
    return [name for name in known if fields[name] is not None]
