"""Rows of one file that are not of one shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

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

    def see(self, seen: Seen) -> Iterable[Finding]:
        """A label of another kind than the file's first."""
        if not isinstance(seen.record, Labelled):
            return
        kind = type(seen.record.label)
        first = self._first.setdefault(seen.origin.source, kind)
        if kind is not first:
            yield SHAPES.at(
                seen.place, f"the label is {_KINDS[kind]}, in the rows before {_KINDS[first]}"
            )
