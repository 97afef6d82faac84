"""The recipe's data part as records: read, recognised, cleaned, divided into two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luthier.core import cache
from luthier.core.contracts import Objective
from luthier.core.contracts_data import DataModels
from luthier.core.contracts_tasks import Tasked
from luthier.core.errors import DataError
from luthier.core.garbage import uncollected
from luthier.core.marks import bare, mark, with_task
from luthier.core.recipe import DataSpec
from luthier.core.recipe_parts import SubsetSpec
from luthier.core.recipe_sources import Reading
from luthier.core.records import Origin, Record, Row, Text
from luthier.data.augment import grow
from luthier.data.cleaning import clean
from luthier.data.holding import hold_out
from luthier.data.recognise import read_records, recognise
from luthier.data.sources import read
from luthier.data.subset import subset

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """Records of one side of the split.

    Attributes:
        records: in the order of the sources; perhaps not read yet (:mod:`luthier.data.sides`).
        fingerprint: of their content and of how they were understood.
        skipped: rows left out because the recipe says so.
        formats: how each source was understood.
        sources: their names.
        groups: of the column that ``data.group`` names, what each row says.
        cleaned: what each step of ``data.clean`` changed and dropped.
        mixed: of a mixture, each file and the number of its entry in ``data.mixture``.
        augmented: what each step of ``data.augment`` made, and what it did not.
    """

    records: Sequence[Record]
    fingerprint: str
    skipped: int
    formats: tuple[str, ...]
    sources: tuple[str, ...] = ()
    groups: Mapping[Origin, Any] = field(default_factory=dict, compare=False, repr=False)
    cleaned: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    mixed: Mapping[str, int] = field(default_factory=dict)
    augmented: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def real(self) -> Part:
        """The same without the rows that were made, which are alike on purpose."""
        if not self.augmented:
            return self
        records = tuple(record for record in self.records if not mark(record.origin))
        return replace(self, records=records, fingerprint=self.real_fingerprint, augmented={})

    @property
    def real_fingerprint(self) -> str:
        """That of :attr:`real`."""
        return cache.key(self.fingerprint, "real") if self.augmented else self.fingerprint

    @property
    def entries(self) -> list[int] | None:
        """Each record's entry in the mixture; ``None`` where there is none."""
        return [self.entry(r.origin.source) for r in self.records] if self.mixed else None

    def entry(self, source: str) -> int:
        """A file's entry in the mixture; rows that were made belong to that of their file."""
        return self.mixed[bare(source)]


def read_parts(
    spec: DataSpec,
    objective: Objective,
    seed: int,
    say: Say,
    models: DataModels | None = None,
) -> tuple[Part, Part | None]:
    """Training and validation records.

    Args:
        spec: the recipe's data part.
        objective: its record types are looked for.
        seed: the run's.
        say: takes a line for the user.
        models: opens what ``data.augment`` or ``data.subset`` name.

    Raises:
        DataError: rows that cannot be read or understood, or a split that leaves nothing.
    """
    whole = _read_part(spec.readings(), spec, objective, say, mixture=spec.mixture is not None)
    held: Part | None = None
    if isinstance(spec.validation, int | float) and spec.validation:
        whole, held = _hold_out(whole, spec, float(spec.validation), seed, say)
    elif spec.group is not None:
        say("data.group has no effect: no share of the rows is held out")
    if spec.validation is not None and not isinstance(spec.validation, int | float):
        held = _read_part([spec.reading(spec.validation)], spec, objective, say)
    kept = _subset(whole, spec.subset, seed, say, models)
    return _augmented(kept, held, spec, seed, say, models), held


@dataclass(frozen=True)
class _Entry:
    """Records of one source of a recipe, before anything is done to them."""

    records: list[Record]
    groups: dict[Origin, Any]
    formats: list[str]
    files: list[str]
    skipped: int
    fingerprint: str


def _read_part(
    readings: Sequence[Reading],
    spec: DataSpec,
    objective: Objective,
    say: Say,
    *,
    mixture: bool = False,
) -> Part:
    with uncollected():
        entries = [_read_entry(each, spec, objective, say) for each in readings]
    mixed = _entry_of(entries) if mixture else {}
    records = [record for entry in entries for record in entry.records]
    formats = tuple(words for entry in entries for words in entry.formats)
    groups = {origin: value for entry in entries for origin, value in entry.groups.items()}
    if skipped := sum(entry.skipped for entry in entries):
        say(f"{skipped:,} malformed rows skipped, as data.malformed says")
    names = tuple(file for entry in entries for file in entry.files)
    prints = [entry.fingerprint for entry in entries]
    name = cache.key(prints) if mixture else prints[0]  # a mixture is divided in its own way
    if not spec.clean:
        return Part(tuple(records), name, skipped, formats, names, groups, mixed=mixed)
    kept, cleaned = clean(records, spec.clean, say)
    content = hashlib.sha256()
    for record in kept:  # a cleaner of the user's own may be another one tomorrow
        content.update(repr(record).encode("utf-8", "surrogatepass"))
    steps = [config.model_dump(mode="json") for config in spec.clean]
    name = cache.key(name, steps, content.hexdigest())
    return Part(tuple(kept), name, skipped, formats, names, groups, cleaned, mixed)


def _read_entry(how: Reading, spec: DataSpec, objective: Objective, say: Say) -> _Entry:
    eater = objective.tasks[how.task] if how.task and isinstance(objective, Tasked) else objective
    sources = read(
        how.source,
        limit=how.limit,
        malformed=spec.malformed,
        timeout=spec.timeout,
        memory=how.memory,
    )
    records: list[Record] = []
    groups: dict[Origin, Any] = {}
    formats, names, skipped = list[str](), list[str](), 0
    for source in sources:
        fmt, words = recognise(source.rows, how.format, eater.records, how.columns)
        called = source.name if how.task is None else with_task(source.name, how.task)
        say(f"{called}: {len(source.rows):,} rows read as {words}")
        if spec.group is not None:
            groups.update({_at(called, row): row.fields.get(spec.group) for row in source.rows})
        found, faults = read_records(source, fmt, how.columns, spec.malformed, how.limit)
        if how.task is not None:
            found = [replace(each, origin=_at(called, each)) for each in found]
        records.extend(found)
        names.append(called)
        formats.append(words)
        skipped += len(source.skipped) + len(faults)
    prints = [source.fingerprint for source in sources]
    of = [] if how.task is None else [how.task]
    name = cache.key(prints, formats, how.format, how.columns, how.limit, *of)
    return _Entry(records, groups, formats, names, skipped, name)


def _at(source: str, row: Row | Record) -> Origin:
    """Where a row stands, in a source of this name."""
    return Origin(source, row.origin.line)


def _entry_of(entries: Sequence[_Entry]) -> dict[str, int]:
    """Each file's entry in the mixture.

    Raises:
        DataError: two entries name one file, whose rows could not be told apart.
    """
    found: dict[str, int] = {}
    for number, entry in enumerate(entries):
        for file in entry.files:
            if (before := found.setdefault(file, number)) != number:
                raise DataError(
                    f"is in data.mixture.{before} and again in data.mixture.{number}",
                    file,
                    "name it once, with a weight",
                    "source",
                )
    return found


def _subset(
    part: Part, spec: SubsetSpec | None, seed: int, say: Say, models: DataModels | None
) -> Part:
    """So many rows that stand for all."""
    rows = len(part.records)
    if spec is None:
        return part
    if spec.rows >= rows:
        say(f"data.subset has no effect: there are {rows:,} training rows")
        return part
    kept = subset(part.records, spec, seed, say, models, part.entries)
    say(f"a subset of {len(kept):,} of {rows:,} training rows, as data.subset says")
    settings = [] if spec.by == "classes" else [spec.model_dump(mode="json"), kept]
    name = cache.key(part.fingerprint, "subset", spec.rows, seed, *settings)
    return replace(part, records=tuple(part.records[i] for i in kept), fingerprint=name)


def _augmented(
    part: Part,
    held: Part | None,
    spec: DataSpec,
    seed: int,
    say: Say,
    models: DataModels | None,
) -> Part:
    """The training rows, and behind them the rows that are made of them."""
    if not spec.augment:
        if spec.augment_share != type(spec).model_fields["augment_share"].default:
            say("data.augment_share has no effect: data.augment names no step")
        return part
    made = grow(part.records, held.records if held else (), spec, seed, say, models)
    steps = [config.model_dump(mode="json") for config in spec.augment]
    name = cache.key(part.fingerprint, "augment", steps, spec.augment_share, seed, made.fingerprint)
    records = (*part.records, *made.records)
    return replace(part, records=records, fingerprint=name, augmented=made.counts)


def _hold_out(
    whole: Part, spec: DataSpec, share: float, seed: int, say: Say
) -> tuple[Part, Part | None]:
    """A share of the records; of documents too few to spare one, the end of each."""
    drawn = hold_out(whole.records, share, seed, spec.group, whole.groups, whole.entries)
    if drawn.said:
        say(drawn.said)
    sides = [[whole.records[i] for i in indices] for indices in (drawn.train, drawn.held)]
    if not drawn.held and all(isinstance(record, Text) for record in whole.records):
        sides = [list(side) for side in zip(*(_tail(r, share) for r in whole.records), strict=True)]
        say(f"too few documents to hold one out: the last {share:.0%} of each is held out")
    elif not drawn.held:
        say("too few rows to hold any out: nothing will be known about how well it does")
        return whole, None
    first, second = (
        Part(
            tuple(side),
            cache.key(whole.fingerprint, name, share, seed, spec.group),
            whole.skipped if name == "train" else 0,
            whole.formats,
            whole.sources,
            cleaned=whole.cleaned if name == "train" else {},
            mixed=whole.mixed,
        )
        for side, name in zip(sides, ("train", "held"), strict=True)
    )
    return first, second


def _tail(record: Record, share: float) -> tuple[Text, Text]:
    """A document without its last share, and that share, cut between two lines."""
    assert isinstance(record, Text)
    at = int(len(record.text) * (1 - share))
    line_end = record.text.find("\n", at)
    at = line_end + 1 if line_end >= 0 else at
    line = record.origin.line + record.text.count("\n", 0, at)
    held = Text(Origin(record.origin.source, line), record.text[at:])
    return Text(record.origin, record.text[:at]), held
