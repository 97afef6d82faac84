"""A source text and what it becomes: source/target, src/tgt, document/summary and the like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import Fault
from luthier.core.records import Origin, Record, Row, SourceTarget
from luthier.data.formats._fields import headless, need, one_text

_PAIRS = (
    ("source", "target"),
    ("src", "tgt"),
    ("source_text", "target_text"),
    ("document", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
)


class Config(KindConfig):
    """Settings of sources and targets."""

    kind: str = "source_target"
    reverse: bool = False
    """Learn the source from the target: a translation's other direction."""


class Format:
    """Rows with a source and a target to :class:`SourceTarget`.

    A source that is a list is its sentences, joined by a space; a target that is one is several
    targets to choose from, and the first is taken, which is said. A column of text alone whose
    lines hold a source, a tab and a target (Tatoeba's pairs, in a ``.txt`` file) is one record a
    line where this format is named; a third cell, an attribution, is left.
    """

    records: ClassVar[tuple[type[Record], ...]] = (SourceTarget,)
    fields: ClassVar[tuple[str, ...]] = ("source", "target")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the source and of the target."""
        pair = _pair(fields)
        if pair is None or not all(_written(fields[name]) for name in pair):
            return None
        target = fields[pair[1]]
        several = isinstance(target, list | tuple) and len(target) > 1
        said = "; of several targets the first is taken" if several else ""
        turned = "; learned the other way round" if self.config.reverse else ""
        return f"source='{pair[0]}', target='{pair[1]}'{said}{turned}"

    def gather(self, rows: Iterable[Row]) -> Iterator[Row | Fault]:
        """The lines of a text of pairs as rows of their own; other rows as they are."""
        for row in rows:
            written = row.fields.get("text")
            if len(row.fields) == 1 and isinstance(written, str) and "\t" in written:
                yield from _lines(written, row.origin)
            else:
                yield row

    def read(self, row: Row) -> Record:
        """The source and the target of a row."""
        pair = _pair(row.fields)
        if pair is None:
            pair = need(row, ("source",), "source"), need(row, ("target",), "target")
        source = one_text(row, pair[0], "source", several=False)
        target = one_text(row, pair[1], "target", several=True)
        if self.config.reverse:
            source, target = target, source
        return SourceTarget(row.origin, source, target)


def _pair(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    cells = headless(fields)
    if len(cells) in (2, 3):
        return cells[0], cells[1]
    found = [pair for pair in _PAIRS if pair[0] in fields and pair[1] in fields]
    return found[0] if found else None


def _written(value: Any) -> bool:
    """Whether a value is text, or a list of texts."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str)


def _lines(text: str, origin: Origin) -> Iterator[Row | Fault]:
    for number, line in enumerate(text.split("\n"), start=origin.line):
        if not line.strip():
            continue
        place = Origin(origin.source, number)
        cells = line.rstrip("\r").split("\t")
        if len(cells) in (2, 3):
            yield Row({"source": cells[0], "target": cells[1]}, place)
        else:
            cure = "write the source, a tab and the target"
            found = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
            yield Fault(f"{found} where a pair is expected", str(place), cure, "cells")
