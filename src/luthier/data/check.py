"""One pass over data that finds what is wrong with it, holding no more than a few bytes a row."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from luthier.core import kinds
from luthier.core.contracts import Format, KindConfig
from luthier.core.errors import DataError, Fault
from luthier.core.findings import Code, Findings
from luthier.core.recipe_sources import Reading
from luthier.core.records import Origin, Record, Row
from luthier.data.checks import reading, shapes
from luthier.data.checks._all import FOLDER, Checks
from luthier.data.checks._base import TRAIN, Known, Places, Seen, Tokens
from luthier.data.cleaning import clean
from luthier.data.holding import hold_out
from luthier.data.patience import Watch, within
from luthier.data.recognise import gathered, recognise, rename
from luthier.data.sources import stream

_FORMATS = "data/formats"
#: Rows of a source that are read before its format is settled.
_SAMPLE = 50
#: Rows between two looks at how far the pass is.
_TICK = 500
#: What names of files say of their split.
_NAMES = {
    TRAIN: ("train", "training"),
    "validation": ("validation", "valid", "validate", "val", "dev"),
    "test": ("test", "testing", "eval", "heldout"),
}

#: Told how far a pass is: a share of it, and what it does.
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Ask:
    """What is checked, and how its rows are to be understood.

    Attributes:
        sides: split and source; the training split first where there is one.
        splits_known: whether the splits' names say what they are for.
        format: as in a recipe.
        columns: renames, the format's field to the data's column.
        accept: record types that the objective takes; ``None`` for any.
        limit: at most so many rows of each source.
        held_out: the share of the rows that is to become the validation split.
        seed: of that split.
        group: what that split must not divide, as in a recipe.
        clean: steps that mend the rows before anything else looks at them, as in a recipe.
        classes: the classes that the recipe names.
        tokens: how a recipe makes tokens of records; they are then all kept.
        timeout: seconds to wait for a source that gives nothing.
        by_row: whether :attr:`Findings.rows` is kept.
        readings: how each side is read where they are not read alike; then ``format``,
            ``columns`` and ``limit`` have no say.
    """

    sides: Sequence[tuple[str, Any]]
    splits_known: bool = False
    format: str | Mapping[str, Any] = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    accept: tuple[type[Record], ...] | None = None
    limit: int | None = None
    held_out: float = 0.1
    seed: int = 0
    group: str | None = None
    clean: Sequence[KindConfig] = ()
    classes: tuple[str, ...] = ()
    tokens: Callable[[Sequence[Record]], Tokens] | None = None
    timeout: float = 300.0
    by_row: bool = False
    workers: int = 1
    readings: Sequence[Reading] = ()

    def reading(self, number: int) -> Reading:
        """How a side is read."""
        if self.readings:
            return self.readings[number]
        return Reading(self.sides[number][1], self.format, self.columns, self.limit)


@dataclass
class SourceSeen:
    """What one file gave.

    Attributes:
        name: of the file.
        split: which side it is on.
        rows: rows that were read, those that no format takes as well.
        faulty: rows that could not be read.
        format: how the rows were understood; empty where they were not.
    """

    name: str
    split: str
    rows: int = 0
    faulty: int = 0
    format: str = ""


@dataclass(frozen=True)
class Report:
    """What a pass found.

    Attributes:
        findings: coded and counted.
        sources: one a file, in the order read.
        seconds: how long it took.
    """

    findings: Findings
    sources: Sequence[SourceSeen]
    seconds: float

    @property
    def rows(self) -> int:
        """Rows of all files, faulty ones included."""
        return sum(each.rows + each.faulty for each in self.sources)

    def plain(self) -> dict[str, Any]:
        """For tools."""
        return {
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "sources": [vars(each) for each in self.sources],
            **self.findings.plain(),
        }


def codes() -> list[Code]:
    """Every code that a check of the folder can give."""
    modules = (kinds.module(FOLDER, name) for name in kinds.names(FOLDER))
    found = [code for module in modules for code in module.Check.codes]
    assert len({code.name for code in found}) == len(found), "a code that two checks give"
    return sorted(found, key=lambda code: code.name)


def sides(values: Sequence[str]) -> tuple[list[tuple[str, Any]], bool]:
    """Splits of sources by what their names say, and whether they say it.

    Where one of them does not, each source is a split of its own.

    >>> sides(["data/dev.csv", "data/train.csv"])
    ([('train', 'data/train.csv'), ('validation', 'data/dev.csv')], True)
    >>> sides(["a.csv", "train.csv"])
    ([('a.csv', 'a.csv'), ('train.csv', 'train.csv')], False)
    """
    files = [file for value in values for file in _files(value)]
    named = [(_split_of(file), file) for file in files]
    if len({name for name, _ in named}) > 1 and all(name for name, _ in named):
        order = list(_NAMES)
        return sorted(named, key=lambda side: order.index(side[0])), True
    return [(value, value) for value in dict.fromkeys(values)], False


def silent(share: float, doing: str) -> None:
    """Nobody looks at how far the pass is."""


def check(ask: Ask, progress: Progress = silent) -> Report:
    """Reads everything once, and tells what is wrong with it.

    Raises:
        RecipeError: a format that does not exist.
        DataError: a source that gives nothing for too long.
    """
    began = time.monotonic()
    names = " and ".join(str(value)[:60] for _, value in ask.sides[:3])
    with tempfile.TemporaryDirectory(prefix="luthier-check-") as scratch:

        def work(watch: Watch) -> _Pass:
            return _Pass(ask, Path(scratch), watch, progress).run()

        done = within(ask.timeout, names, work)
    return Report(done.findings, done.sources, time.monotonic() - began)


class _Pass:
    """Readers to formats to checks, row by row."""

    def __init__(self, ask: Ask, scratch: Path, watch: Watch, progress: Progress) -> None:
        self.findings = Findings(by_row=ask.by_row)
        self.sources: list[SourceSeen] = []
        self._ask, self._watch, self._progress = ask, watch, progress
        alone = len({name for name, _ in ask.sides}) == 1
        self._known = Known(
            Places(),
            scratch,
            ask.splits_known,
            ask.held_out if alone else 0.0,
            ask.classes,
            ask.tokens,
        )
        self._checks = Checks(self._known, self.findings, ask.workers)
        self._groups: dict[Origin, Any] = {}
        self._how = Reading(None)
        self._entry_of: dict[str, int] = {}
        self._total = sum(os.path.getsize(f) for _, v in ask.sides for f in _present(v))

    def run(self) -> _Pass:
        """Everything, in order."""
        with self._checks:
            for number, (name, value) in enumerate(self._ask.sides):
                how = self._how = self._ask.reading(number)
                for source in stream(value, limit=how.limit, watch=self._watch, memory=how.memory):
                    self._entry_of[source.name] = number
                    self._source(SourceSeen(source.name, name), source.items)
            if self._ask.tokens is not None:
                self._as_trained()
            self._checks.close(self._progress)
        return self

    def _source(self, seen: SourceSeen, items: Iterator[Row | Fault]) -> None:
        self.sources.append(seen)
        self._known.places.sources.append(seen.name)
        first: list[Row] = []
        waiting: list[Row | Fault] = []
        for item in items:
            waiting.append(item)
            if isinstance(item, Row):
                first.append(item)
            if len(first) == _SAMPLE:
                break
        fmt = self._format(first, seen)
        rows = self._rows(chain(waiting, items), seen)
        for row in rows if fmt is None else gathered(fmt, rows):
            if isinstance(row, Fault):
                self._checks.add(reading.finding(row))
            else:
                self._row(row, fmt, seen)

    def _format(self, first: Sequence[Row], seen: SourceSeen) -> Format | None:
        if not first:
            return None
        how = self._how
        try:
            fmt, seen.format = recognise(first, how.format, self._ask.accept, how.columns)
        except DataError as error:
            # What follows the first names single rows, which reading them will name again.
            self._checks.add(reading.finding(error.faults[0]))
            return None
        return fmt

    def _rows(self, items: Iterable[Row | Fault], seen: SourceSeen) -> Iterator[Row]:
        """Rows by their format's names, counted; what cannot be read is found and counted."""
        for item in items:
            if isinstance(item, Fault):
                whole = item.place == seen.name
                seen.faulty += 0 if whole else 1
                self._checks.add(reading.finding(item))
                continue
            seen.rows += 1
            if self._ask.group:
                self._groups[item.origin] = item.fields.get(self._ask.group)
            if self._total and seen.rows % _TICK == 0:
                share = min(1.0, self._watch.taken / self._total)
                self._progress(share, f"{len(self._known.places):,} rows")
            yield rename(item, self._how.columns)

    def _row(self, row: Row, fmt: Format | None, seen: SourceSeen) -> None:
        number = self._known.places.add(row.origin.line, seen.split)
        record = None if fmt is None else self._record(row, fmt)
        if record is not None and self._ask.tokens is not None:
            self._known.records.append((number, record))  # to be mended, and seen then
        else:
            self._checks.see(Seen(row.origin, record, number, seen.split))

    def _record(self, row: Row, fmt: Format) -> Record | None:
        try:
            return fmt.read(row)
        except DataError as error:
            if (words := _otherwise(row, fmt)) is not None:
                message = f"the row is {words}, those before it are not"
                self._checks.add(shapes.SHAPES.at(row.origin, message))
            else:
                for fault in error.faults:
                    self._checks.add(reading.finding(fault))
            return None

    def _as_trained(self) -> None:
        """Rows as training would have them: cleaned, then divided."""
        known = self._known
        if self._ask.clean:
            self._mend()
        if known.held_out and known.records:
            self._hold_out()
        for number, record in known.records:
            self._checks.see(Seen(record.origin, record, number, known.places.split(number)))

    def _mend(self) -> None:
        """Every step of ``data.clean`` on each side; rows that it drops are seen by no check."""
        places = self._known.places
        numbers = {record.origin: number for number, record in self._known.records}
        kept: list[tuple[int, Record]] = []
        for side in places.splits:
            records = [r for number, r in self._known.records if places.split(number) == side]
            try:
                cleaned, _ = clean(records, self._ask.clean)
            except DataError as error:
                for fault in error.faults:
                    self._checks.add(reading.SPLIT.at(places.file_of(side), fault.message))
                cleaned = ()
            kept += [(numbers[record.origin], record) for record in cleaned]
        self._known.records[:] = sorted(kept, key=lambda pair: pair[0])

    def _hold_out(self) -> None:
        """The split that training would make, noted for every row."""
        known = self._known
        ask, records = self._ask, [record for _, record in known.records]
        try:
            numbers = [self._entry_of[record.origin.source] for record in records]
            sources = numbers if ask.readings else None
            held = hold_out(records, ask.held_out, ask.seed, ask.group, self._groups, sources).held
        except DataError as error:
            for fault in error.faults:
                place = fault.place or known.places.sources[0]
                self._checks.add(reading.SPLIT.at(place, fault.message, fault.cure))
            return
        index = known.places.index("validation")
        for each in held:
            known.places.split_of[known.records[each][0]] = index


def _otherwise(row: Row, fmt: Format) -> str | None:
    """What another format knows a row as that its own does not know."""
    if fmt.recognise(row.fields) is not None:
        return None
    for name in kinds.names(_FORMATS):
        other: Format = kinds.build(_FORMATS, kinds.config(_FORMATS, name))
        if (words := other.recognise(row.fields)) is not None:
            return f"{name} ({words})" if words else name
    return None


def _split_of(file: str) -> str:
    words = re.findall("[a-z]+", Path(file).name.lower())
    for split_, names in _NAMES.items():
        if set(names) & set(words):
            return split_
    return ""


def _files(value: str) -> list[str]:
    """A folder's files, so that each may name its split; anything else as it is."""
    path = Path(os.path.expanduser(value))
    return [each.name for each in stream(value)] if path.is_dir() else [value]


def _present(value: Any) -> list[str]:
    """Paths of a source that are there, for their sizes."""
    if isinstance(value, str):
        return [file for file in _files(value) if os.path.isfile(os.path.expanduser(file))]
    if isinstance(value, list | tuple):
        return [file for each in value if isinstance(each, str) for file in _present(each)]
    return []
