"""Rows of one file that are not of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from luthier.core.findings import Code, Finding
from luthier.core.records import Labelled
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Known, Seen

SHAPES = Code(
    "D009",
    "error",
    "rows of different shapes in one file",
    "put the rows of each shape into a file of their own",
)
_KINDS = {str: "one class", tuple: "several classes", float: "a number"}


class Check(Base):
    """Labels that are one class in one row and several, or a number, in another.

    Rows that another format would know are found where rows are read (:mod:`luthier.data.check`).
    """

    codes: ClassVar[tuple[Code, ...]] = (SHAPES,)

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._first: dict[str, type] = {}

    @classmethod
    def digest(cls, rows: Sequence[Seen]) -> Any:
        """Of labelled rows: their place, where they stand, the kind of label."""
        return [
            (place, seen.origin, type(seen.record.label))
            for place, seen in enumerate(rows)
            if isinstance(seen.record, Labelled)
        ]

    def take(self, digest: Any) -> Iterable[tuple[int, Finding]]:
        """A label of another kind than the file's first."""
        for place, origin, kind in digest:
            first = self._first.setdefault(origin.source, kind)
            if kind is not first:
                message = f"the label is {_KINDS[kind]}, in the rows before {_KINDS[first]}"
                yield place, SHAPES.at(origin, message)
