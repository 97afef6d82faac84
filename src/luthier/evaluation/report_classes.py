"""What the report page shows of a classifier: its confusions drawn or listed, its weakest classes.

The heat map's plane is in pixels, one cell a class; the names of the true classes stand in a
drawing of their own, which stays in sight while the map is scrolled.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from luthier.evaluation.report_data import Fields, mapping, number
from luthier.evaluation.report_words import figure, percent

#: Up to this many classes the confusions are drawn, beyond it listed.
DRAWN = 30
#: Up to this many classes the names above the map lean; beyond it they stand upright.
LEANING = 20
#: Confusions listed.
CONFUSIONS = 15
#: Classes in the table, the weakest first.
WEAKEST = 20
#: Shares of the true class's rows up to which a cell has the level 1, 2, 3, 4; beyond, 5.
LEVELS = (0.05, 0.2, 0.5, 0.8)
#: Pixels that a name may take beside the map, and what a plain letter of it takes at most.
_ROOM, _LETTER = 150.0, 6.6


@dataclass(frozen=True, slots=True)
class Confusion:
    """A true class read as another: how many rows, and the share of the true class's."""

    true: str
    said: str
    count: int
    share: str


@dataclass(frozen=True, slots=True)
class Square:
    """A cell of the heat map; ``tone`` is ``right``, ``wrong`` or ``none``."""

    x: int
    y: int
    tone: str
    level: int
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Name:
    """A class's name at an axis, shortened to fit, and the whole of it."""

    at: float
    text: str
    full: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """The confusion matrix, truth down and prediction across.

    Attributes:
        cell: pixels of a cell's side.
        side: pixels of the whole square.
        top: pixels above it for the names of what is said.
        left: pixels beside it for the names of what is true.
        right: pixels behind it, over which leaning names reach.
        upright: whether the names above stand instead of leaning.
        names: at the middle of each row and column.
        squares: row by row.
        summary: the matrix in words.
    """

    cell: int
    side: int
    top: int
    left: int
    right: int
    upright: bool
    names: tuple[Name, ...]
    squares: tuple[Square, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class of the table."""

    name: str
    support: str
    precision: str
    recall: str
    f1: str
    before: str


@dataclass(frozen=True, slots=True)
class Classes:
    """The section.

    Attributes:
        lead: the majority class in words.
        several: whether a row may have several labels.
        heat: the confusions drawn, for few classes.
        confusions: the most frequent ones listed, for many.
        unlisted: what of them the list leaves out, in words.
        rows: the weakest classes.
        before: whether any has a figure before training.
        more: which classes the table leaves out, in words.
    """

    lead: str
    several: bool
    heat: HeatMap | None
    confusions: tuple[Confusion, ...]
    unlisted: str
    rows: tuple[ClassRow, ...]
    before: bool
    more: str


def classes(evaluation: Fields | None) -> Classes | None:
    """The section of a classifier's evaluation; ``None`` for anything else, or what is broken."""
    found = mapping(mapping(evaluation).get("classes"))
    raw = found.get("names")
    names = [str(name) for name in raw] if isinstance(raw, list) else []
    table = _table(found.get("confusion"), len(names))
    figures = found.get("per_class")
    per_class = [mapping(one) for one in figures] if isinstance(figures, list) else []
    known = [one for one in per_class if number(one.get("f1")) is not None]
    if not names or (table is None and not known):
        return None
    confused = _confused(names, table) if table is not None else []
    rows, more = weakest(known, "class", "row")
    drawn = table is not None and len(names) <= DRAWN
    return Classes(
        lead=majority(evaluation),
        several=table is None,
        heat=_heat(names, table, confused) if table is not None and drawn else None,
        confusions=() if drawn else tuple(confused[:CONFUSIONS]),
        unlisted="" if drawn else _unlisted(confused),
        rows=tuple(rows),
        before=any(number(one.get("f1_before")) is not None for one in known),
        more=more,
    )


def majority(evaluation: Fields | None) -> str:
    """The baseline of always saying the most frequent class, in words; empty where unknown."""
    found = mapping(mapping(mapping(evaluation).get("classes")).get("majority"))
    share = number(found.get("accuracy"))
    if share is None:
        return ""
    name = str(found.get("name") or "")
    saying = f"saying “{name}”" if name else "saying no label at all"
    return f"Always {saying} would be right in {percent(share)} of rows."


def no_better(evaluation: Fields | None) -> bool:
    """Whether the model after is not shown to be right more often than that baseline."""
    baseline = mapping(mapping(mapping(evaluation).get("classes")).get("majority"))
    share = number(baseline.get("accuracy"))
    accuracy = mapping(mapping(mapping(evaluation).get("metrics")).get("accuracy"))
    interval = accuracy.get("after_interval")
    low = number(interval[0]) if isinstance(interval, list) and interval else None
    reached = low if low is not None else number(accuracy.get("after"))
    return share is not None and reached is not None and reached <= share


def _table(value: Any, classes: int) -> list[list[int]] | None:
    """Counts, ``classes`` by ``classes``; ``None`` for anything else."""
    if not isinstance(value, list) or len(value) != classes:
        return None
    rows = []
    for row in value:
        counts = [number(count) for count in row] if isinstance(row, list) else []
        whole = [int(count) for count in counts if count is not None and count >= 0]
        if len(whole) != classes:
            return None
        rows.append(whole)
    return rows


def _confused(names: list[str], table: list[list[int]]) -> list[Confusion]:
    """All confusions, the most frequent first."""
    found = [
        Confusion(names[true], names[said], count, percent(count / sum(row)))
        for true, row in enumerate(table)
        for said, count in enumerate(row)
        if count and said != true
    ]
    return sorted(found, key=lambda one: -one.count)


def _unlisted(confused: list[Confusion]) -> str:
    rest = confused[CONFUSIONS:]
    if not rest:
        return ""
    rows = sum(one.count for one in rest)
    pairs = "1 more pair" if len(rest) == 1 else f"{len(rest):,} more pairs"
    return f"{pairs} of classes, with {_rows(rows)} between them, are in evaluation.json."


def _heat(names: list[str], table: list[list[int]], confused: list[Confusion]) -> HeatMap:
    count = len(names)
    cell = next(size for most, size in ((6, 52), (12, 44), (20, 34), (DRAWN, 27)) if count <= most)
    short = [_shorten(name) for name in names]
    room = max(_width(name) for name in short)
    squares = []
    for true, row in enumerate(table):
        total = sum(row)
        for said, rows in enumerate(row):
            share = rows / total if total else 0.0
            tone = "none" if not rows else "right" if true == said else "wrong"
            level = 1 + sum(share > bound for bound in LEVELS) if rows else 0
            reading = "read right" if true == said else f"read as {names[said]}"
            title = f"{names[true]}, {reading}: {rows:,} of {_rows(total)}"
            text = "" if not rows else _count(rows, cell)
            squares.append(Square(cell * said, cell * true, tone, level, text, title))
    # Names above lean, as high as wide; over many classes they stand, or they would need more
    # room to the right than the page has.
    upright = count > LEANING
    top = round(room if upright else 0.71 * room) + 14
    return HeatMap(
        cell=cell,
        side=cell * count,
        top=top,
        left=round(room) + 14,
        right=1 if upright else max(1, top - cell // 2),
        upright=upright,
        names=tuple(
            Name(cell * (i + 0.5), text, name)
            for i, (text, name) in enumerate(zip(short, names, strict=True))
        ),
        squares=tuple(squares),
        summary=_summary(table, confused),
    )


def _summary(table: list[list[int]], confused: list[Confusion]) -> str:
    total, right = sum(map(sum, table)), sum(row[i] for i, row in enumerate(table))
    said = f"{right:,} of {_rows(total)} are read right."
    if not confused:
        return said
    most = "; ".join(f"“{one.true}” read as “{one.said}” ({one.count:,})" for one in confused[:3])
    return f"{said} Most often confused: {most}."


def weakest(known: list[Fields], noun: str, unit: str) -> tuple[list[ClassRow], str]:
    """Table rows, worst F1 first, and what is left out, in words.

    Args:
        known: figures of each.
        noun: what has figures: a class, a type.
        unit: what is counted of it: rows, entities.
    """
    told = [one for one in known if number(one.get("support"))]
    silent = len(known) - len(told)
    told.sort(key=lambda one: number(one.get("f1")) or 0.0)
    rows = [
        ClassRow(
            name=str(one.get("name")),
            support=f"{number(one.get('support')) or 0:,.0f}",
            **{key: _score(one.get(key)) for key in ("precision", "recall", "f1")},
            before=_score(one.get("f1_before")),
        )
        for one in told[:WEAKEST]
    ]
    several = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    left = []
    if rest := told[WEAKEST:]:
        least = _score(rest[0].get("f1"))
        others = f"1 more {noun} has" if len(rest) == 1 else f"{len(rest):,} more {several} have"
        left.append(f"{others} an F1 of {least} or more.")
    if silent:
        others = f"1 {noun} has" if silent == 1 else f"{silent:,} {several} have"
        left.append(f"{others} no held-out {unit}, so nothing is known of how well it is read.")
    return rows, " ".join(left)


def _score(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.2f}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _count(rows: int, cell: int) -> str:
    """A count that fits its cell: 1234 as ``1.2k`` where four digits do not."""
    if rows < 1000 or (rows < 10_000 and cell > 34):
        return str(rows)
    return f"{figure(rows / 1000, 2, trim=True)}k"


def _shorten(name: str) -> str:
    """The name, or its beginning and an ellipsis, within the room beside the map."""
    plain = " ".join(name.split()) or "(empty)"
    if _width(plain) <= _ROOM:
        return plain
    ends = accumulate(_LETTER if narrow else 2 * _LETTER for narrow in map(_narrow, plain))
    kept = sum(end <= _ROOM - 2 * _LETTER for end in ends)
    return plain[:kept].rstrip() + "…"


def _width(text: str) -> float:
    return sum(_LETTER if _narrow(letter) else 2 * _LETTER for letter in text)


def _narrow(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) not in "WF"
