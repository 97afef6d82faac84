"""The seams of data, before there is a token: rows to records, records mended, records made.

The other seams are in :mod:`luthier.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from luthier.core.errors import Fault
from luthier.core.generators import GeneratorSpec, Writer
from luthier.core.records import Floats, Record, Row


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
        notes: what else is to be known of them, in words.
    """

    records: Sequence[Record]
    changed: int
    dropped: int
    notes: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Augmented:
    """Records that an augmenter made.

    Attributes:
        records: each with the origin of the row that it was made of, or of the first of several.
        failed: why others were not made, in words, and how many.
    """

    records: Sequence[Record]
    failed: Mapping[str, int] = field(default_factory=dict)


class Augmenter(Protocol):
    """A step that makes further training records of those there are; it changes none of them."""

    #: Whether a record is meant to say nearly the same as the one it was made of: typing noise
    #: is, a paraphrase that only moves a comma is worth nothing.
    near: ClassVar[bool]

    @property
    def generator(self) -> GeneratorSpec | None:
        """The language model that it asks, if any."""
        ...

    def wanted(self, records: Sequence[Record]) -> int:
        """How many records it would make of these."""
        ...

    def augment(
        self, records: Sequence[Record], count: int, seed: int, writer: Writer | None
    ) -> Augmented:
        """At most ``count`` new records, the same ones whenever the arguments are.

        Args:
            records: the real training records.
            count: :meth:`wanted`, or fewer where the recipe bounds them.
            seed: the run's.
            writer: what answers for :attr:`generator`.

        Raises:
            DataError: records of a kind that it makes nothing of.
        """
        ...


class DataModels(Protocol):
    """What data borrows from the layers that it may not import: models that write or embed."""

    def writer(self, spec: GeneratorSpec, say: Callable[[str], None]) -> Writer:
        """The generator of a recipe; ``say`` is told what leaves the machine, before it does."""
        ...

    def embed(self, model: str, texts: Sequence[str], say: Callable[[str], None]) -> Floats:
        """Texts as vectors of length one, ``[texts, H]``, by an encoder that a recipe names."""
        ...


@runtime_checkable
class Classed(Protocol):
    """An objective whose examples may have one class each, so that classes can be balanced."""

    @property
    def class_column(self) -> tuple[str, str] | None:
        """Table and column with the one class of an example, as a number.

        ``None`` where an example has none or several; known once the objective is settled.
        """
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        ...
