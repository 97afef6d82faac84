"""Data files, one reader a suffix: ``(line, fields)`` of each row, faults to a log."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from luthier.core.errors import DataError
from luthier.data.faults import FaultLog
from luthier.data.files_conll import conll_rows
from luthier.data.files_csv import csv_rows, headless_rows
from luthier.data.files_json import json_rows, jsonl_rows, list_rows
from luthier.data.files_tables import TABLES
from luthier.data.lines import Found, decoded
from luthier.data.patience import Watch

_PACKED: Mapping[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
}


def _txt_rows(stream: IO[bytes], name: str, _log: FaultLog) -> Iterator[Found]:
    text = decoded(stream.read(), name)
    if text.strip():
        yield 1, {"text": text}


def _tsv_rows(stream: IO[bytes], name: str, log: FaultLog) -> Iterator[Found]:
    return csv_rows(stream, name, log, delimiter="\t")


Reader = Callable[[IO[bytes], str, FaultLog], Iterator[Found]]

_READERS: Mapping[str, Reader] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": _tsv_rows,
    ".txt": _txt_rows,
    ".conll": conll_rows,
    ".conll.txt": conll_rows,
    ".iob": conll_rows,
    ".iob2": conll_rows,
    ".bio": conll_rows,
    ".annotated": conll_rows,
}
#: Readers of a part of a file: what stands after the colon of ``data.json:train``.
_PARTS: Mapping[str, Callable[[IO[bytes], str, FaultLog, str], Iterator[Found]]] = {
    ".json": list_rows,
    ".csv": headless_rows,
    ".tsv": headless_rows,
}

SUFFIXES_SAID = f"{', '.join([*_READERS, *TABLES])}; text ones also with {', '.join(_PACKED)}"


def supported(path: Path) -> bool:
    """Whether the name's suffix is one that can be read."""
    return path.suffix.lower() in TABLES or _text_suffix(path) in _READERS


def rows(
    path: Path, log: FaultLog, watch: Watch | None = None, part: str | None = None
) -> Iterator[Found]:
    """Line and fields of each row of a file.

    Args:
        path: an existing file.
        log: takes the faults of single rows.
        watch: knows since when the file has given nothing.
        part: the list of a JSON file that holds several, or ``headless`` of a CSV file without
            a header.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    name, watch = str(path), watch or Watch()
    table = TABLES.get(path.suffix.lower())
    if table is not None and part is None:
        yield from table(path, watch)
        return
    whole = _READERS.get(_text_suffix(path))
    reader = whole if part is None else _part_reader(path, part)
    if reader is None:
        raise DataError(
            f"'{path.suffix}' is no suffix of a data file",
            name,
            f"one of {SUFFIXES_SAID}",
            code="suffix",
        )
    unpack = _PACKED.get(path.suffix.lower())
    try:
        with watch.open(path) as raw:
            if unpack is None:
                yield from reader(raw, name, log)
                return
            with unpack(raw, "rb") as stream:
                yield from reader(stream, name, log)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's own; gzip and bz2 raise bare ones for bytes that are not theirs
        raise DataError(
            f"cannot be unpacked: {error}",
            name,
            "is the file whole, and of the kind its suffix says?",
            code="unpack",
        ) from error


def _text_suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    if "".join(suffixes[-2:]) in _READERS:
        return "".join(suffixes[-2:])
    return suffixes[-1] if suffixes else ""


def _part_reader(path: Path, part: str) -> Reader:
    reader = _PARTS.get(_text_suffix(path))
    if reader is None:
        raise DataError(
            f"'{path.suffix}' files have no part '{part}'",
            str(path),
            "name the file alone; a list of a .json file and :headless of a .csv are parts",
            code="part",
        )
    return lambda stream, name, log: reader(stream, name, log, part)
