"""What checks share: the row as they see it, where rows stand, and the class they build on."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from luthier.core.contracts import Objective
from luthier.core.findings import Code, Finding
from luthier.core.records import Labelled, Origin, Record
from luthier.data import contents

#: The split that a model learns from; others are measured on.
TRAIN = "train"


@dataclass
class Places:
    """Where every row of the pass stands, in a few bytes each.

    Attributes:
        sources: names of the files, in the order read.
        splits: names of the splits, in the order met.
    """

    sources: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    _source: array[int] = field(default_factory=lambda: array("I"))
    _line: array[int] = field(default_factory=lambda: array("Q"))
    split_of: array[int] = field(default_factory=lambda: array("B"))

    def __len__(self) -> int:
        return len(self._line)

    def add(self, line: int, split: str) -> int:
        """Notes a row of the last source; returns its number."""
        self._source.append(len(self.sources) - 1)
        self._line.append(line)
        self.split_of.append(self.index(split))
        return len(self._line) - 1

    def index(self, split: str) -> int:
        """A split's number."""
        if split not in self.splits:
            self.splits.append(split)
        return self.splits.index(split)

    def at(self, number: int) -> str:
        """``file:line`` of a row."""
        return f"{self.sources[self._source[number]]}:{self._line[number]}"

    def split(self, number: int) -> str:
        """The split of a row."""
        return self.splits[self.split_of[number]]

    def file_of(self, split: str) -> str:
        """The first file of a split, for what is said about the whole of it."""
        if split not in self.splits:
            return split
        number = self.split_of.tobytes().find(bytes([self.splits.index(split)]))
        return self.sources[self._source[number]] if number >= 0 else split


@dataclass(frozen=True)
class Known:
    """What checks are told before the first row.

    Attributes:
        places: of all rows; it grows as they are read.
        scratch: a folder for what does not fit into memory; deleted afterwards.
        splits_known: whether the splits' names say what they are for (``train`` is the training
            split); otherwise every source is compared with every other and no more is known.
        held_out: the validation share that is taken out of the training rows; 0 for none.
        classes: the classes that the recipe names; empty where it names none.
        tokens: how the recipe makes tokens of records, given all of them; ``None`` without one.
        records: every record with its row's number, kept where the recipe needs them all.
    """

    places: Places
    scratch: Path
    splits_known: bool = False
    held_out: float = 0.1
    classes: tuple[str, ...] = ()
    tokens: Callable[[Sequence[Record]], Tokens] | None = None
    records: list[tuple[int, Record]] = field(default_factory=list)


@dataclass(frozen=True)
class Tokens:
    """How records become examples under a recipe.

    Attributes:
        objective: what encodes them, settled.
        codec: the one path from turns to tokens, a :class:`~luthier.data.template.TokenizerCodec`.
        embeddings: rows of the model's embedding; ids must lie below.
        overlong: what becomes of examples that are too long.
    """

    objective: Objective
    codec: Any
    embeddings: int
    overlong: str


@dataclass(frozen=True)
class Seen:
    """A row and what was understood of it.

    Attributes:
        origin: where the row stands.
        record: as its format understood it; ``None`` where it did not.
        number: of the row in the pass, from 0.
        split: the name of its split.
    """

    origin: Origin
    record: Record | None
    number: int
    split: str

    @property
    def place(self) -> str:
        """``file:line``."""
        return str(self.origin)

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """What a model would learn to write."""
        return contents.answers(self.record)

    @cached_property
    def prompt(self) -> str:
        """What a model is shown before it."""
        return contents.prompt(self.record)

    @cached_property
    def label(self) -> str | None:
        """Its only label."""
        label = self.record.label if isinstance(self.record, Labelled) else None
        return label if isinstance(label, str) else None

    @cached_property
    def whole(self) -> str:
        """All of its text, labels left out; see :func:`luthier.data.contents.whole`."""
        return "" if self.record is None else contents.whole(self.record)


class Check:
    """One family of checks.

    Rows are looked at in pieces, perhaps in other processes, in whatever order; nothing is known
    there but the rows themselves. What that leaves is taken in the order of the rows.

    Attributes:
        codes: everything that it can find.
    """

    codes: ClassVar[tuple[Code, ...]] = ()

    def __init__(self, known: Known) -> None:
        self.known = known

    @classmethod
    def see(cls, seen: Seen) -> Iterable[Finding]:  # noqa: ARG003
        """What one row shows by itself; rows without a record as well."""
        return ()

    @classmethod
    def digest(cls, rows: Sequence[Seen]) -> Any:  # noqa: ARG003
        """What must be kept of these rows: plain and small; ``None`` for nothing."""
        return None

    def take(self, digest: Any) -> Iterable[tuple[int, Finding]]:
        """Keeps it; gives what the rows show beside earlier ones, by their place among these."""
        return ()

    def close(self) -> Iterable[Finding]:
        """What all of them show together."""
        return ()
