"""Sources of rows as a recipe names them: one, or several in a mixture."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

from pydantic import Field, JsonValue, field_validator, model_validator

from luthier.core import kinds
from luthier.core.marks import with_task
from luthier.core.recipe_faults import Complaint
from luthier.core.recipe_values import name_source
from luthier.core.settings import RefusalError, Settings

#: What may stand for a source in a file.
SOURCE_SCHEMA: list[JsonValue] = [
    {"type": "string", "minLength": 1},
    {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
    {"type": "array", "minItems": 1, "items": {"type": "object"}},
]
#: What a recipe that was written to a run folder says of rows that no file holds.
_IN_MEMORY = re.compile(r"<(\d+ )?rows in memory>")


@dataclass(frozen=True)
class Reading:
    """How the rows of one source are read.

    Attributes:
        source: what a recipe may name as data.
        format: a format's name, with settings as a mapping, or ``auto``.
        columns: renames, the format's field to the data's column.
        limit: at most so many rows of each file.
        memory: what rows in memory are called.
        task: what its rows are for, where the objective has several tasks.
    """

    source: Any
    format: str | Mapping[str, Any] = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    memory: str = "memory"
    task: str | None = None


class SourceSpec(Settings):
    """A source of a mixture: its rows, and how much of an epoch they are."""

    source: Any = Field(json_schema_extra={"anyOf": [*SOURCE_SCHEMA]})
    """A file, a list of files, a hub id, or rows in memory, as ``data.train``."""
    task: str | None = None
    """What its rows are for, where ``objective: several`` has tasks."""
    weight: float = Field(default=1.0, gt=0)
    """How often its examples are drawn, against those of a source of weight 1; at a higher
    temperature a factor on its share."""
    share: float | None = Field(default=None, gt=0, le=1)
    """Of an epoch's examples, in place of ``weight``; sources without one divide the rest."""
    cap: int | None = Field(default=None, ge=1)
    """It counts for at most so many examples; which ones are drawn changes from epoch to epoch."""
    limit: int | None = Field(default=None, ge=1)
    """Its first rows alone; ``data.limit`` if unset."""
    format: str | dict[str, JsonValue] | None = None
    """How its rows are understood; ``data.format`` if unset."""
    columns: dict[str, str] | None = None
    """Its renames; ``data.columns`` if unset."""

    @field_validator("source")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must name a file, this is empty")
        return source(value)

    @field_validator("format")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value not in (None, "auto"):
            kinds.config("data/formats", value)
        return value

    @model_validator(mode="after")
    def _one_measure(self) -> SourceSpec:
        if self.share is not None and "weight" in self.model_fields_set and self.weight != 1:
            raise ValueError("takes either 'weight' or 'share', not both")
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, name_source(value) if name == "source" else value

    @property
    def uneven(self) -> bool:
        """Whether it asks for another share than its own examples make."""
        return self.weight != 1 or self.share is not None or self.cap is not None

    def name(self, number: int) -> str:
        """What it is called: its first file; of rows in memory, its place in the mixture."""
        found = self.called(number)
        return found if self.task is None else with_task(found, self.task)

    def called(self, number: int) -> str:
        """The same without its task."""
        if isinstance(self.source, str):
            return self.source
        if type(self.source) in (list, tuple) and isinstance(self.source[0], str):
            others = len(self.source) - 1
            return f"{self.source[0]} and {others} more" if others else str(self.source[0])
        return f"memory {number + 1}"


def source(value: Any) -> Any:
    """A source of rows as the recipe keeps it: paths as text, rows in memory untouched.

    Raises:
        ValueError: what is no source.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None:
        return value
    if isinstance(value, str):
        if _IN_MEMORY.fullmatch(value):
            raise RefusalError(
                "the rows were in memory, no file holds them",
                "give the recipe its rows again: luthier.train({…, 'data': {'train': rows}})",
            )
        if not value.strip():
            raise ValueError("must name a file, this is empty")
        return value
    if type(value) in (list, tuple):
        if not value:
            raise ValueError("must name a file, this list is empty")
        if all(isinstance(each, Mapping) for each in value):
            return value
        if all(isinstance(each, str | os.PathLike) for each in value):
            return [source(each) for each in value]
        raise ValueError("must be all files or all rows, this list mixes them")
    if isinstance(value, bool | int | float | bytes) or type(value) is dict:
        raise ValueError("must be a file, a list of files, a hub id, or rows in memory")
    return value


def drawing_complaints(data: Any) -> Iterator[Complaint]:
    """What a recipe's ``data`` says of an epoch's drawing that does not go together."""
    mixture: Sequence[SourceSpec] | None = data.mixture
    if mixture is None:
        for name, plain in (("temperature", 1.0), ("epoch_length", "total")):
            if getattr(data, name) != plain:
                yield _complaint((name,), "has no effect without data.mixture")
        return
    if data.train is not None:
        yield _complaint(
            ("mixture",),
            "stands in place of data.train, and there are both",
            "leave one of them out (data.mixture=null or data.train=null on the command line)",
        )
    yield from _share_complaints(mixture)
    if data.temperature != 1 and all(entry.share is not None for entry in mixture):
        yield _complaint(("temperature",), "has no effect: every source has a share of its own")
    uneven = data.temperature != 1 or data.epoch_length != "total"
    if data.balance is not None and (uneven or any(entry.uneven for entry in mixture)):
        yield _complaint(
            ("balance",),
            "an epoch is drawn either by class or by source, and this asks for both",
            "leave out weight, share, cap, temperature and epoch_length, or balance",
        )


def _share_complaints(mixture: Sequence[SourceSpec]) -> Iterator[Complaint]:
    shares = [entry.share for entry in mixture if entry.share is not None]
    total = fsum(shares)
    if shares and len(shares) == len(mixture) and abs(total - 1) > 1e-6:
        yield _complaint(("mixture",), f"its shares sum to {total:.6g}, where an epoch is 1")
    elif len(shares) < len(mixture) and total > 1 - 1e-6:
        yield _complaint(
            ("mixture",),
            f"its shares sum to {total:.6g}, which leaves nothing for the sources without one",
        )


def _complaint(path: tuple[str | int, ...], reason: str, cure: str = "") -> Complaint:
    return Complaint(("data", *path), reason, cure, "pairing")
