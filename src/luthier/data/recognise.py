"""Which format rows are in, found from their columns and said aloud; rows to records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core import kinds
from luthier.core.contracts import Format, Gathering
from luthier.core.errors import DataError, Fault, RecipeError, nearest
from luthier.core.records import Record, Row
from luthier.data.faults import SHOWN, FaultLog
from luthier.data.sources import Source

_FOLDER = "data/formats"
#: Rows looked at.
_SAMPLE = 50
#: How formats say a column: ``prompt='question'``.
_COLUMN = re.compile(r"='([^']*)'")


@dataclass(frozen=True)
class _Candidate:
    """A format that recognised rows: how many, its words, the columns that it named."""

    name: str
    format: Format
    rows: int
    words: str
    columns: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} ({self.words})" if self.words else self.name

    @property
    def fields(self) -> tuple[str, ...] | None:
        """The fields that a rename may fill; ``None`` where the format does not say."""
        return getattr(self.format, "fields", None)


def recognise(
    rows: Sequence[Row],
    name: str | Mapping[str, Any] = "auto",
    accept: tuple[type[Record], ...] | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[Format, str]:
    """The format of rows.

    ``auto`` asks every format about the first rows. A format that knows more than half of them
    is a candidate (the others are likely faulty rows, which reading them will name); among
    candidates whose records the objective accepts the one that knows most rows wins, then the
    one that uses more of the columns.

    Args:
        rows: rows of one source; the first ones are looked at.
        name: a format's name, a user's own by import path, either with settings as a mapping,
            or ``auto``.
        accept: record types that the objective takes; ``None`` for any.
        columns: renames, the format's field to the data's column.

    Returns:
        The format, and how the rows are understood: ``prompt_response (prompt='question',
        response='answer')``.

    Raises:
        DataError: no format or several fit; shows the columns, the formats and the cure.
        RecipeError: no format of that name.
    """
    renames = dict(columns or {})
    sample = rows[:_SAMPLE]
    if not sample:
        raise DataError("there are no rows to recognise a format in", code="no-rows")
    _check_renames(sample, renames)
    renamed = [rename(row, renames) for row in sample]
    names = kinds.names(_FOLDER) if name == "auto" else (name,)
    asked = [_ask(each, renamed) for each in names]
    _check_targets(asked, renames)
    chosen = _automatic(asked, renamed, accept) if name == "auto" else asked[0]
    if name != "auto":
        _check_named(chosen, renamed, accept)
    _check_targets([chosen], renames)
    words = chosen.words
    for field, column in renames.items():
        words = words.replace(f"='{field}'", f"='{column}'")
    return chosen.format, f"{chosen.name} ({words})" if words else chosen.name


def read_records(
    source: Source,
    fmt: Format,
    columns: Mapping[str, str],
    malformed: str,
    limit: int | None = None,
) -> tuple[list[Record], list[Fault]]:
    """Every row of a source as a record.

    Args:
        source: the rows.
        fmt: their format.
        columns: renames, the format's field to the data's column.
        malformed: ``refuse`` raises where rows are faulty, ``skip`` leaves them out.
        limit: at most so many records, of a format that makes several of a row.

    Returns:
        The records, and the faults of the rows left out.

    Raises:
        DataError: the first ten faults, and how many more there are.
    """
    log = FaultLog(malformed)
    records: list[Record] = []
    for row in gathered(fmt, (rename(row, columns) for row in source.rows)):
        if isinstance(row, Fault):
            log.add(row)
            continue
        if limit is not None and len(records) >= limit:
            break
        try:
            records.append(fmt.read(row))
        except DataError as error:
            log.add(*error.faults)
    return records, list(log.finish(len(records)))


def gathered(fmt: Format, rows: Iterable[Row]) -> Iterator[Row | Fault]:
    """Rows as a format reads them, one a record, and the faults of those that give none."""
    return fmt.gather(rows) if isinstance(fmt, Gathering) else iter(rows)


def rename(row: Row, columns: Mapping[str, str]) -> Row:
    """A row whose columns go by the format's names; a column renamed over is left out."""
    present = {field: column for field, column in columns.items() if column in row.fields}
    if not present:
        return row
    gone = set(present.values())
    fields = {key: value for key, value in row.fields.items() if key not in gone}
    fields.update({field: row.fields[column] for field, column in present.items()})
    return Row(fields, row.origin)


def _automatic(
    asked: Sequence[_Candidate], rows: Sequence[Row], accept: tuple[type[Record], ...] | None
) -> _Candidate:
    candidates = [each for each in asked if each.rows * 2 > len(rows)]
    fitting = [each for each in candidates if _accepted(each.format, accept)]
    if candidates and not fitting:
        raise _unwanted(candidates, rows, accept)
    most = max((each.rows for each in fitting), default=0)
    best = [each for each in fitting if each.rows == most]
    best = [each for each in best if not any(each.columns < other.columns for other in best)]
    if len(best) == 1:
        return best[0]
    raise _unclear(best, rows)


def _check_named(
    named: _Candidate, rows: Sequence[Row], accept: tuple[type[Record], ...] | None
) -> None:
    """One of the rows must be readable: a single faulty row is for reading to name."""
    if not _accepted(named.format, accept):
        raise _unwanted([named], rows, accept)
    faults: list[Fault] = []
    for row in gathered(named.format, rows):
        if isinstance(row, Fault):
            faults.append(row)
            continue
        try:
            named.format.read(row)
            return
        except DataError as error:
            faults.extend(error.faults)
    message = f"the rows are not in the format '{named.name}': {_summary(named.name)}"
    first = Fault(message, rows[0].origin.source, _COLUMNS_CURE, "format")
    raise DataError.of([first, *faults[:SHOWN]])


def _ask(name: str | Mapping[str, Any], rows: Sequence[Row]) -> _Candidate:
    try:
        settings = kinds.config(_FOLDER, name)
        fmt: Format = kinds.build(_FOLDER, settings)
    except kinds.BadKindError as error:
        raise error.error from None
    except kinds.BadConfigError as error:
        raise RecipeError(f"format '{name}' cannot be used without settings: {error}") from error
    said = [words for row in rows if (words := fmt.recognise(row.fields)) is not None]
    words = max(said, key=len, default="")
    return _Candidate(settings.kind, fmt, len(said), words, frozenset(_COLUMN.findall(words)))


def _accepted(fmt: Format, accept: tuple[type[Record], ...] | None) -> bool:
    return accept is None or any(issubclass(kind, accept) for kind in fmt.records)


_COLUMNS_CURE = "rename columns (`columns: {prompt: question}`) or name another `format:`"


def _check_renames(rows: Sequence[Row], renames: Mapping[str, str]) -> None:
    seen = _seen(rows)
    faults = [
        Fault(
            f"columns: '{column}' (for '{field}') is in none of the first {len(rows)} rows",
            rows[0].origin.source,
            nearest(column, seen),
            "columns",
        )
        for field, column in renames.items()
        if column not in seen
    ]
    doubled = [column for column in renames.values() if [*renames.values()].count(column) > 1]
    if doubled:
        faults.append(
            Fault(
                f"columns: '{doubled[0]}' is named for two fields",
                rows[0].origin.source,
                code="columns",
            )
        )
    if faults:
        raise DataError.of(faults)


def _check_targets(asked: Sequence[_Candidate], renames: Mapping[str, str]) -> None:
    """A rename to a field that no format has would have no effect, in silence."""
    known = {*renames} if any(each.fields is None for each in asked) else set[str]()
    for each in asked:
        known |= {*(each.fields or ()), *each.columns}
    faults = [
        Fault(
            f"columns: '{field}' is no field of "
            + (f"the format '{asked[0].name}'" if len(asked) == 1 else "any format"),
            cure=nearest(field, known),
            code="columns",
        )
        for field in renames
        if field not in known
    ]
    if faults:
        raise DataError.of(faults)


def _unwanted(
    found: Sequence[_Candidate], rows: Sequence[Row], accept: tuple[type[Record], ...] | None
) -> DataError:
    there = " or ".join(map(str, found))
    wanted = ", ".join(kind.__name__ for kind in accept or ())
    fitting = [n for n in kinds.names(_FOLDER) if _accepted(_ask(n, ()).format, accept)]
    return DataError(
        f"the rows are {there}, and the objective learns from {wanted}; columns: "
        f"{', '.join(_seen(rows))}",
        rows[0].origin.source,
        f"choose an objective for such rows, or say `format:` ({', '.join(fitting)}) and "
        "`columns:`",
        "format",
    )


def _unclear(found: Sequence[_Candidate], rows: Sequence[Row]) -> DataError:
    place, seen = rows[0].origin.source, ", ".join(_seen(rows))
    if found:
        there = " or ".join(map(str, found))
        return DataError(
            f"the rows could be {there}; columns: {seen}",
            place,
            f"say which: `format: {found[0].name}`",
            "ambiguous",
        )
    formats = "".join(f"\n    {name}: {_summary(name)}" for name in kinds.names(_FOLDER))
    return DataError(
        f"no format knows rows with the columns: {seen}",
        place,
        f"{_COLUMNS_CURE}; the formats are:{formats}",
        "unrecognised",
    )


def _seen(rows: Sequence[Row]) -> list[str]:
    """All columns of the rows, in the order met."""
    return list(dict.fromkeys(key for row in rows for key in row.fields))


def _summary(name: str) -> str:
    return kinds.summary(_FOLDER, name) if "." not in name else "a format of your own"
