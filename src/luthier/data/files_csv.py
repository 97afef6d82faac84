"""Comma- and tab-separated values: a header, then records with the line each begins on."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from luthier.core.errors import DataError, Fault
from luthier.data.faults import FaultLog
from luthier.data.lines import Found, bad_utf8, physical_lines


def csv_rows(
    stream: IO[bytes], name: str, log: FaultLog, delimiter: str | None = None
) -> Iterator[Found]:
    """Records under the names of the header; an empty cell is an empty string.

    The delimiter is the comma, or what separates the header where that has no comma: a
    semicolon, a tab, a bar.

    Raises:
        DataError: the header is unusable.
    """
    lines = _Lines(stream, name)
    with _long_cells():
        header: list[str] | None = None
        for line, cells, fault in _records(lines, name, delimiter):
            if header is None:
                if fault is not None:
                    raise DataError.of([fault])
                header = _header(cells, f"{name}:{line}")
            elif fault is not None:
                log.add(fault)
            elif len(cells) != len(header):
                log.add(_wrong_width(cells, header, f"{name}:{line}"))
            else:
                yield line, dict(zip(header, cells, strict=True))


def headless_rows(stream: IO[bytes], name: str, log: FaultLog, part: str) -> Iterator[Found]:
    """Records of a file without a header, their cells by number: ``column_1``, ``column_2``.

    All have as many cells as the first one; the delimiter is found as with a header.

    Raises:
        DataError: ``part`` is not ``headless``.
    """
    if part != "headless":
        cure = "write :headless where the file has no header, or name the file alone"
        raise DataError(f"a CSV file has no part '{part}'", name, cure, "part")
    header: list[str] = []
    with _long_cells():
        for line, cells, fault in _records(_Lines(stream, name), name, None):
            if fault is not None:
                log.add(fault)
                continue
            header = header or [f"column_{i}" for i in range(1, len(cells) + 1)]
            if len(cells) != len(header):
                log.add(_wrong_width(cells, header, f"{name}:{line}"))
            else:
                yield line, dict(zip(header, cells, strict=True))


class _Lines:
    """Physical lines as text, one at a time; keeps the fault of bytes that are no UTF-8."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._lines = physical_lines(stream, name)
        self._name = name
        self._ahead: list[str] = []
        self.fault: Fault | None = None

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._ahead:
            return self._ahead.pop()
        number, offset, raw = next(self._lines)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            self.fault = self.fault or bad_utf8(error, self._name, number, offset)
            return raw.decode("utf-8", "replace")

    def peek(self) -> str:
        """The next line, which stays; nothing at the end."""
        if not self._ahead:
            self._ahead = [line for line in [next(self, "")] if line]
        return self._ahead[0] if self._ahead else ""


def _records(
    lines: _Lines, name: str, delimiter: str | None
) -> Iterator[tuple[int, list[str], Fault | None]]:
    """First line and cells of each record, or what is wrong with it."""
    reader = csv.reader(lines, delimiter=delimiter or _delimiter(lines.peek()), strict=True)
    while True:
        line, fault = reader.line_num + 1, None
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = _malformed(error, f"{name}:{line}", reader.line_num)
        fault, lines.fault = lines.fault or fault, None
        if cells or fault is not None:
            yield line, cells, fault


def _delimiter(header: str) -> str:
    found = [mark for mark in ",;\t|" if mark in header]
    return found[0] if found else ","


def _header(cells: list[str], place: str) -> list[str]:
    names = [cell.strip() or f"column_{i}" for i, cell in enumerate(cells, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"the header names the column '{twice[0]}' twice",
            place,
            "give each column its own name",
            "columns",
        )
    return names


def _wrong_width(cells: list[str], header: list[str], place: str) -> Fault:
    message = f"{len(cells)} cells where the header names {len(header)}: {', '.join(header)}"
    return Fault(message, place, "put a cell that holds the delimiter in double quotes", "cells")


def _malformed(error: csv.Error, place: str, last: int) -> Fault:
    said = str(error)
    if "end of data" in said:
        message = f"a quoted cell of this record is never closed (read on to line {last})"
        return Fault(
            message, place, 'close it; a quote inside a quoted cell is ""', "malformed-csv"
        )
    if "new-line character" in said:
        cure = "save the file with \\n at the end of lines"
        return Fault("a carriage return alone stands in a cell", place, cure, "malformed-csv")
    cure = 'a cell that begins with a quote ends with one; a quote inside it is ""'
    return Fault(f"malformed CSV: {said}", place, cure, "malformed-csv")


@contextmanager
def _long_cells() -> Iterator[None]:
    """Lifts the csv module's bound of 128 KiB a cell, which documents exceed."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
