"""The seams of data: rows to records, records mended, and what a cut may take away.

The other seams are in :mod:`luthier.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from luthier.core.errors import Fault
from luthier.core.records import Record, Row


class Format(Protocol):
    """Rows to records of one kind. A format may be :class:`Gathering` as well."""

    @property
    def records(self) -> tuple[type[Record], ...]:
        """The record types that it gives, under its settings."""
        ...

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """What it recognised in a row, said in words, or ``None`` where it is another format's."""
        ...

    def read(self, row: Row) -> Record:
        """The record of a row.

        Raises:
            DataError: a missing, null or wrongly typed column.
        """
        ...


@runtime_checkable
class Gathering(Protocol):
    """A format whose rows and records do not match one to one, or hang together.

    A message table has many rows for one tree, a task many instances in one row, and a file one
    tag scheme for all of its rows.
    """

    def gather(self, rows: Iterable[Row]) -> Iterator[Row | Fault]:
        """Rows as ``read`` takes them, one a record, each with the line where it begins.

        A row that belongs to no record is given as a fault, so that nothing is lost uncounted.
        """
        ...


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a cleaner made of records.

    Attributes:
        records: those that stay, in order.
        changed: how many of them say something else than before.
        dropped: how many are no longer there.
    """

    records: Sequence[Record]
    changed: int
    dropped: int


class Cleaner(Protocol):
    """A step that mends records in the open: it counts what it changes and what it drops."""

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """All records of one side of the data."""
        ...


@runtime_checkable
class Sourced(Protocol):
    """An objective whose examples are a source and its target, in that order, and nothing else.

    A cut then shortens the source's text, never what a template writes around it.
    """

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """Longest source and longest target in tokens, beside the bound of the context."""
        ...
