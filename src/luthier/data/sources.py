"""Where rows come from: files, folders, the hub, lists, frames; each row knows its line.

========================  ======================================================================
value                     rows
========================  ======================================================================
a file                    ``.jsonl .ndjson .json .csv .tsv .parquet .arrow .txt``, and CoNLL
                          columns as ``.conll .conll.txt .iob .iob2 .bio .annotated``; the text
                          ones also packed with ``.gz``, ``.xz`` or ``.bz2``
``data.json:train``       one of several lists in a JSON file, by its name; rows that are lists
                          themselves have the columns ``column_1``, ``column_2`` …
``data.csv:headless``     a CSV or TSV file without a header, its columns named likewise
a folder                  every such file in it, in order of name
a list of paths           each of them
``owner/name``            a data set on the hub, split ``train``; ``owner/name:split`` and
                          ``owner/name:config/split`` say more
list of dicts, pandas     rows in memory, numbered from 1
frame, ``Dataset``
========================  ======================================================================

A line is physical and counts from 1, blank ones included: that of the row's first character. In
Parquet and Arrow files, on the hub and in memory it is the row's number.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from luthier.core.errors import DataError, Fault
from luthier.core.records import Origin, Row
from luthier.data import files, hub
from luthier.data.cells import plain
from luthier.data.faults import FaultLog, FaultQueue
from luthier.data.patience import Watch, within

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(:(?P<rest>[^:]+))?")


#: Files of a folder that are about the data, as they are spelled.
_ABOUT = {f"{name}.txt" for name in ("README", "LICENSE", "LICENCE", "SOURCE", "CITATION")} | {
    "dataset_info.json",  # what datasets' save_to_disk writes beside its rows
    "state.json",
}


@dataclass(frozen=True)
class Source:
    """One file, hub split or list, read.

    Attributes:
        name: the path as given, the hub id with its split, or ``memory``.
        rows: the rows that could be read, in order.
        skipped: what was wrong with each row left out; empty unless ``malformed`` was ``skip``.
        fingerprint: sha256 of the file's bytes, or of the rows as canonical JSON.
    """

    name: str
    rows: tuple[Row, ...]
    skipped: tuple[Fault, ...]
    fingerprint: str


def read(
    value: Any,
    *,
    limit: int | None = None,
    malformed: str = "refuse",
    timeout: float = 300.0,
    memory: str = "memory",
) -> list[Source]:
    """Reads whatever a recipe may name as data; see the table above.

    Args:
        value: a path, a list of paths, a hub id, or rows in memory.
        limit: at most so many rows of each source; what lies beyond is not looked at.
        malformed: ``refuse`` raises on a row that cannot be read, ``skip`` leaves it out and
            returns its fault.
        timeout: seconds to wait for a source that gives nothing.
        memory: what rows in memory are called.

    Returns:
        One source a file, a hub split or a list.

    Raises:
        DataError: every fault found (ten spelled out for each file), with its file and line.
    """
    how = _How(limit, malformed, timeout, memory)
    if isinstance(value, str | os.PathLike):
        return _read_named(os.fspath(value), how)
    if _is_dataset(value):
        return [within(timeout, memory, lambda watch: _read_dataset(value, how, watch))]
    if (rows := _frame_rows(value)) is not None:
        return [_in_memory(rows, how)]
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        if all(isinstance(item, Mapping) for item in value):
            return [_in_memory(value, how)]
        if not any(isinstance(item, Mapping) for item in value):
            return _read_each(value, how)
    raise DataError(
        f"data cannot be read from {_described(value)}",
        cure="give a path, a list of paths, a hub id (owner/name), a list of dicts, a pandas "
        "DataFrame or a datasets.Dataset",
        code="source",
    )


@dataclass(frozen=True)
class Stream:
    """One file, hub split or list, read as it is asked for.

    Attributes:
        name: as :attr:`Source.name`.
        items: every row, and what is wrong with each row that cannot be read, in order. What is
            wrong with the whole source ends it, as its last fault.
    """

    name: str
    items: Iterator[Row | Fault]


def stream(
    value: Any, *, limit: int | None = None, watch: Watch | None = None, memory: str = "memory"
) -> list[Stream]:
    """Rows of whatever a recipe may name as data, without holding all of them.

    Args:
        value: as for :func:`read`; a folder or a list gives a stream for each file in it.
        limit: at most so many rows of each source.
        watch: knows since when a source has given nothing, and how much it gave.
        memory: what rows in memory are called.
    """
    eye = watch or Watch()
    if not isinstance(value, str | os.PathLike):
        if isinstance(value, Sequence) and all(isinstance(v, str | os.PathLike) for v in value):
            return [each for inner in value for each in stream(inner, limit=limit, watch=eye)]
        return [_streamed(memory, lambda _: _row_values(value, eye), limit)]
    name = os.fspath(value)
    path = Path(os.path.expanduser(name))
    with suppress(OSError):  # a name that is too long for the disk is refused below
        if path.is_dir() and (inside := _inside(path)):
            return [each for file in inside for each in stream(file, limit=limit, watch=eye)]
        if path.exists() and not path.is_dir():
            return [_streamed(str(path), lambda log: files.rows(path, log, eye), limit)]
    whole, _, part = name.rpartition(":")
    file = Path(os.path.expanduser(whole))
    if part and files.supported(file) and file.is_file():
        return [_streamed(name, lambda log: files.rows(file, log, eye, part), limit)]

    def others(log: FaultLog) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for source in _read_named(name, _How(limit, "skip", 300.0)):
            log.add(*source.skipped)
            yield from ((row.origin.line, row.fields) for row in source.rows)

    return [_streamed(name, others, limit)]


def _streamed(
    name: str,
    rows: Callable[[FaultLog], Iterable[tuple[int, Mapping[str, Any]]]],
    limit: int | None,
) -> Stream:
    def items() -> Iterator[Row | Fault]:
        log, good = FaultQueue(), 0
        try:
            for row in _numbered(rows(log), name, limit):
                good += 1
                yield from log.taken()
                yield row
            yield from log.taken()
        except DataError as error:
            yield from log.taken()
            yield from error.faults
            return
        except OSError as error:
            yield Fault(f"cannot be read: {error.strerror or error}", name, code="file")
            return
        if not good and not log.count:
            yield Fault("holds no rows", name, "is it the right file?", "no-rows")

    return Stream(name, items())


@dataclass(frozen=True)
class _How:
    """What :func:`read` was told."""

    limit: int | None
    malformed: str
    timeout: float
    memory: str = "memory"


def _read_each(values: Iterable[Any], how: _How) -> list[Source]:
    sources: list[Source] = []
    faults: list[Fault] = []
    for value in values:
        try:
            sources.extend(
                read(value, limit=how.limit, malformed=how.malformed, timeout=how.timeout)
            )
        except DataError as error:
            faults.extend(error.faults)
    if faults:
        raise DataError.of(faults)
    return sources


def _read_named(name: str, how: _How) -> list[Source]:
    path = Path(os.path.expanduser(name))
    try:
        there = path.exists()
    except OSError as error:
        raise DataError(f"is no path: {error.strerror}", f"{name[:60]}…", code="no-file") from None
    if path.is_dir():
        inside = _inside(path)
        if not inside:
            raise DataError(
                f"the folder holds no data file ({files.SUFFIXES_SAID})", name, code="no-rows"
            )
        return _read_each(inside, how)
    if there:
        return [within(how.timeout, str(path), lambda watch: _read_file(path, how, watch))]
    whole, _, part = name.rpartition(":")
    file = Path(os.path.expanduser(whole))
    if part and files.supported(file):
        if not file.is_file():
            raise _no_such_file(whole, file)
        return [within(how.timeout, name, lambda watch: _read_file(file, how, watch, part))]
    match = _HUB_ID.fullmatch(name)
    if match is None or files.supported(path):
        raise _no_such_file(name, path)
    rest = match["rest"] or "train"
    identity = match["id"]
    named = f"{identity}:{rest}"
    return [within(how.timeout, named, lambda watch: _read_hub(identity, rest, how, watch))]


def paths(value: Any) -> list[Path] | None:
    """The files that a source consists of; ``None`` where something else gives its rows."""
    if isinstance(value, list | tuple):
        found = [paths(each) for each in value]
        known = [path for each in found for path in each or ()]
        return None if None in found or not known else known
    if not isinstance(value, str | os.PathLike):
        return None
    name = os.fspath(value)
    path = Path(os.path.expanduser(name))
    with suppress(OSError):  # a name that is too long for the disk
        if path.is_dir():
            return _inside(path) or None
        if path.exists():
            return [path]
        whole, _, part = name.rpartition(":")
        file = Path(os.path.expanduser(whole))
        if part and files.supported(file) and file.is_file():
            return [file]
    return None


def _inside(folder: Path) -> list[Path]:
    """The data files of a folder, in order of name.

    Hidden ones are left, and those that are about the data: ``README.txt``, ``LICENSE.txt`` …
    """
    found = sorted(p for p in folder.iterdir() if p.is_file() and files.supported(p))
    return [p for p in found if not p.name.startswith(".") and p.name not in _ABOUT]


def _read_file(path: Path, how: _How, watch: Watch, part: str | None = None) -> Source:
    name = str(path)
    log = FaultLog(how.malformed)
    try:
        rows = tuple(_numbered(files.rows(path, log, watch, part), name, how.limit))
        with watch.open(path) as stream:
            fingerprint = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", name, code="file") from error
    if part is not None:
        name, fingerprint = f"{name}:{part}", f"{fingerprint}:{part}"
    return _finished(name, rows, log, fingerprint)


def _read_hub(identity: str, rest: str, how: _How, watch: Watch) -> Source:
    config, _, split = rest.rpartition("/")
    name = f"{identity}:{rest}"
    log = FaultLog(how.malformed)
    found = hub.rows(identity, config or None, split, how.limit, watch.each)
    rows = tuple(_numbered(enumerate(found, start=1), name, how.limit))
    return _finished(name, rows, log, _digest(rows))


def _row_values(value: Any, watch: Watch) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Numbered rows of a list, a frame or a data set in memory."""
    if _is_dataset(value):
        found: Iterable[Any] = hub.dataset_rows(value, watch.each)
    else:
        found = frame if (frame := _frame_rows(value)) is not None else value
    return ((i, plain(dict(each))) for i, each in enumerate(found, start=1))


def _read_dataset(value: Any, how: _How, watch: Watch) -> Source:
    return _in_memory(hub.dataset_rows(value, watch.each), how)


def _in_memory(values: Iterable[Any], how: _How) -> Source:
    log = FaultLog(how.malformed)
    cleaned = ((i, plain(dict(value))) for i, value in enumerate(values, start=1))
    rows = tuple(_numbered(cleaned, how.memory, how.limit))
    return _finished(how.memory, rows, log, _digest(rows))


def _numbered(
    found: Iterable[tuple[int, Mapping[str, Any]]], name: str, limit: int | None
) -> Iterable[Row]:
    return (Row(fields, Origin(name, line)) for line, fields in islice(found, limit))


def _finished(name: str, rows: tuple[Row, ...], log: FaultLog, fingerprint: str) -> Source:
    skipped = log.finish(len(rows))
    if not rows:
        raise DataError("holds no rows", name, "is it the right file?", code="no-rows")
    return Source(name, rows, skipped, fingerprint)


def _digest(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        text = json.dumps(
            row.fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
        )
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _frame_rows(value: Any) -> Iterable[Mapping[str, Any]] | None:
    """Rows of a pandas frame; the library is not imported to find out."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        if not value.columns.is_unique:
            raise DataError("the frame has two columns of one name", "memory", code="columns")
        renamed = value.rename(columns=str)
        return (
            dict(zip(renamed.columns, row, strict=True))
            for row in renamed.itertuples(index=False, name=None)
        )
    return None


def _is_dataset(value: Any) -> bool:
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(value, datasets.Dataset | datasets.IterableDataset)


def _no_such_file(name: str, path: Path) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError(
            f"no such file: the folder '{folder}' does not exist",
            name,
            "check the path",
            code="no-file",
        )
    known = sorted(p.name for p in folder.iterdir() if p.is_dir() or files.supported(p))
    close = difflib.get_close_matches(path.name, known, n=1, cutoff=0.5)
    if close:
        cure = f"did you mean '{folder / close[0]}'?"
    elif known:
        cure = f"'{folder}' holds: {', '.join(known[:8])}{' …' if len(known) > 8 else ''}"
    else:
        cure = f"'{folder}' holds no data file; a data set on the hub is named owner/name"
    return DataError("no such file", name, cure, code="no-file")


def _described(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        kinds = sorted({type(item).__name__ for item in value})
        return f"a {type(value).__name__} that mixes {' and '.join(kinds)}"
    if isinstance(value, dict) and type(value) is not dict:
        return f"a {type(value).__name__} of {', '.join(map(str, value))}: choose one of them"
    return f"a {type(value).__name__}"
