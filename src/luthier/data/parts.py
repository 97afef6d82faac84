"""The recipe's data part as records: read, recognised, cleaned, divided into two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luthier.core import cache, kinds
from luthier.core.contracts import Objective
from luthier.core.errors import DataError
from luthier.core.recipe import DataSpec
from luthier.core.records import Origin, Record, Text
from luthier.data.clusters import together
from luthier.data.recognise import read_records, recognise
from luthier.data.sources import read
from luthier.data.split import split

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """Records of one side of the split.

    Attributes:
        records: in the order of the sources; perhaps not read yet (:mod:`luthier.data.sides`).
        fingerprint: of their content and of how they were understood.
        skipped: rows left out because the recipe says so.
        formats: how each source was understood.
        groups: of the column that ``data.group`` names, what each row says.
        cleaned: what each step of ``data.clean`` changed and dropped.
    """

    records: Sequence[Record]
    fingerprint: str
    skipped: int
    formats: tuple[str, ...]
    groups: Mapping[Origin, Any] = field(default_factory=dict, compare=False, repr=False)
    cleaned: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """Names of the sources that its records came from."""
        told = getattr(self.records, "sources", None)  # by records that are not read yet
        return sorted({r.origin.source for r in self.records} if told is None else told)


def read_parts(
    spec: DataSpec, objective: Objective, seed: int, say: Say
) -> tuple[Part, Part | None]:
    """Training and validation records.

    Raises:
        DataError: rows that cannot be read or understood, or a split that leaves nothing.
    """
    whole = _read_part(spec.train, spec, objective, say)
    held: Part | None = None
    if isinstance(spec.validation, int | float) and spec.validation:
        whole, held = _hold_out(whole, spec, float(spec.validation), seed, say)
    elif spec.group is not None:
        say("data.group has no effect: no share of the rows is held out")
    if spec.validation is not None and not isinstance(spec.validation, int | float):
        held = _read_part(spec.validation, spec, objective, say)
    return _subset(whole, spec.subset, seed, say), held


def _read_part(value: Any, spec: DataSpec, objective: Objective, say: Say) -> Part:
    sources = read(value, limit=spec.limit, malformed=spec.malformed, timeout=spec.timeout)
    records: list[Record] = []
    groups: dict[Origin, Any] = {}
    formats, skipped = [], 0
    for source in sources:
        fmt, words = recognise(source.rows, spec.format, objective.records, spec.columns)
        say(f"{source.name}: {len(source.rows):,} rows read as {words}")
        if spec.group is not None:
            groups.update({row.origin: row.fields.get(spec.group) for row in source.rows})
        found, faults = read_records(source, fmt, spec.columns, spec.malformed, spec.limit)
        records.extend(found)
        formats.append(words)
        skipped += len(source.skipped) + len(faults)
    if skipped:
        say(f"{skipped:,} malformed rows skipped, as data.malformed says")
    name = cache.key(
        [s.fingerprint for s in sources], formats, spec.format, spec.columns, spec.limit
    )
    if not spec.clean:
        return Part(tuple(records), name, skipped, tuple(formats), groups)
    kept, cleaned = _cleaned(records, spec, say)
    content = hashlib.sha256()
    for record in kept:  # a cleaner of the user's own may be another one tomorrow
        content.update(repr(record).encode("utf-8", "surrogatepass"))
    steps = [config.model_dump(mode="json") for config in spec.clean]
    name = cache.key(name, steps, content.hexdigest())
    return Part(tuple(kept), name, skipped, tuple(formats), groups, cleaned)


def _cleaned(
    records: Sequence[Record], spec: DataSpec, say: Say
) -> tuple[Sequence[Record], dict[str, dict[str, int]]]:
    """Records after every step of ``data.clean``, and what each step did."""
    done: dict[str, dict[str, int]] = {}
    for number, config in enumerate(spec.clean, start=1):
        made = kinds.build("data/cleaners", config).clean(records)
        if not made.records:
            raise DataError(
                f"data.clean: {config.kind} left none of {len(records):,} rows", code="no-rows"
            )
        say(f"clean, {config.kind}: {made.changed:,} rows changed, {made.dropped:,} dropped")
        done[f"{number} {config.kind}"] = {"changed": made.changed, "dropped": made.dropped}
        records = made.records
    return records, done


def _subset(part: Part, count: int | None, seed: int, say: Say) -> Part:
    """So many rows that stand for all: drawn as a held-out share is, class by class."""
    rows = len(part.records)
    if count is None:
        return part
    if count >= rows:
        say(f"data.subset has no effect: there are {rows:,} training rows")
        return part
    _, kept = split(part.records, count / rows, seed)
    say(f"a subset of {len(kept):,} of {rows:,} training rows, as data.subset says")
    name = cache.key(part.fingerprint, "subset", count, seed)
    return replace(part, records=tuple(part.records[i] for i in kept), fingerprint=name)


def _hold_out(
    whole: Part, spec: DataSpec, share: float, seed: int, say: Say
) -> tuple[Part, Part | None]:
    """A share of the records; of documents too few to spare one, the end of each."""
    keys = None
    if spec.group is not None:
        keys = together(whole.records, spec.group, whole.groups)
        say(f"{len(set(keys)):,} groups by {spec.group}; none is on both sides of the split")
    train, held = split(whole.records, share, seed, keys)
    sides = [[whole.records[i] for i in indices] for indices in (train, held)]
    if not held and all(isinstance(record, Text) for record in whole.records):
        sides = [list(side) for side in zip(*(_tail(r, share) for r in whole.records), strict=True)]
        say(f"too few documents to hold one out: the last {share:.0%} of each is held out")
    elif not held:
        say("too few rows to hold any out: nothing will be known about how well it does")
        return whole, None
    first, second = (
        Part(
            tuple(side),
            cache.key(whole.fingerprint, name, share, seed, *([spec.group] if keys else [])),
            whole.skipped if name == "train" else 0,
            whole.formats,
            cleaned=whole.cleaned if name == "train" else {},
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
