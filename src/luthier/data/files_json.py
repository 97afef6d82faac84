"""JSON lines and JSON arrays, row by row with the line that each begins on."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any

from luthier.core.errors import DataError, Fault, nearest
from luthier.data.faults import FaultLog
from luthier.data.lines import Found, bad_utf8, decoded, physical_lines

_SPACE = re.compile(r"[ \t\n\r]*")
_LINES_CURE = "one JSON object a line; a row that spans lines belongs into a .json file"


def jsonl_rows(stream: IO[bytes], name: str, log: FaultLog) -> Iterator[Found]:
    """One JSON object a line; blank lines count but give no row."""
    for number, offset, raw in physical_lines(stream, name):
        place = f"{name}:{number}"
        try:
            text = raw.decode("utf-8").rstrip(" \t\r\n")
            value = _DECODER.decode(text) if text else None
        except UnicodeDecodeError as error:
            log.add(bad_utf8(error, name, number, offset))
            continue
        except (ValueError, RecursionError) as error:
            log.add(Fault(_cause(error), place, _LINES_CURE, "malformed-json"))
            continue
        if not text:
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            log.add(_no_object(value, place))


def json_rows(stream: IO[bytes], name: str, log: FaultLog) -> Iterator[Found]:
    """An array of objects, or one object that holds a single array of them.

    JSON lines under the suffix ``.json`` are read as what they are.

    Raises:
        DataError: malformed JSON, which nothing behind it can be trusted after.
    """
    raw = stream.read()
    first, _, rest = raw.lstrip().partition(b"\n")
    if first.lstrip(b"\xef\xbb\xbf").startswith(b"{") and rest.strip() and _is_json(first):
        yield from jsonl_rows(BytesIO(raw), name, log)
        return
    scan = _Scan(decoded(raw, name), name)
    if scan.peek() == "[":
        yield from _objects(scan, log)
        scan.end()
    elif scan.peek() == "{":
        yield from _wrapped(scan, log)
    elif scan.peek():
        raise DataError(
            "neither an array of objects nor an object",
            f"{name}:{scan.line()}",
            "write [{…}, {…}]",
            "malformed-json",
        )


def list_rows(stream: IO[bytes], name: str, log: FaultLog, part: str) -> Iterator[Found]:
    """The rows of one of several lists in an object: objects, or lists of cells.

    The cells of a row that is a list go by ``column_1``, ``column_2`` …

    Raises:
        DataError: malformed JSON, or no list of that name.
    """
    scan = _Scan(decoded(stream.read(), name), name)
    scan.peek()
    place = f"{name}:{scan.line()}"
    arrays, _ = _outline(scan)
    if part not in arrays:
        found = ", ".join(f"'{key}'" for key in arrays) or "none"
        message = f"the object holds no list '{part}'; its lists: {found}"
        raise DataError(message, place, nearest(part, arrays), "part")
    inner = _Scan(scan.text, name)
    inner.at = arrays[part]
    for line, value in _items(inner):
        if isinstance(value, list):
            value = {f"column_{i}": cell for i, cell in enumerate(value, start=1)}
        if isinstance(value, dict):
            yield line, value
        else:
            log.add(_no_object(value, f"{name}:{line}"))


class _Scan:
    """A place in a JSON text that moves forward value by value and knows its line."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name, self.at = text, name, 0
        self._counted, self._line = 0, 1

    def peek(self) -> str:
        """The next character that is no white space, or nothing at the end."""
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def line(self) -> int:
        """The physical line of the place."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def take(self, character: str) -> None:
        """Moves past a character that must come next."""
        if self.peek() != character:
            raise self.malformed(f"Expecting '{character}'")
        self.at += 1

    def value(self) -> Any:
        """The next whole value."""
        self.peek()
        try:
            value, self.at = _DECODER.raw_decode(self.text, self.at)
        except (ValueError, RecursionError) as error:
            cause = _cause(error)
            self.at = max(self.at, getattr(error, "pos", self.at))
            raise self.malformed(cause) from None
        return value

    def end(self) -> None:
        """Refuses anything that still follows."""
        if self.peek():
            raise self.malformed("Extra data")

    def malformed(self, cause: str) -> DataError:
        """The error of a text that is no JSON from here on."""
        if not cause.startswith("malformed"):
            column = self.at - self.text.rfind("\n", 0, self.at)
            cause = f"malformed JSON: {cause} at column {column}"
        cure = "mend the file; rows that are independent survive better as JSON lines (.jsonl)"
        return DataError(cause, f"{self.name}:{self.line()}", cure, "malformed-json")


def _objects(scan: _Scan, log: FaultLog) -> Iterator[Found]:
    """The objects of the array that comes next."""
    for line, value in _items(scan):
        if isinstance(value, dict):
            yield line, value
        else:
            log.add(_no_object(value, f"{scan.name}:{line}"))


def _items(scan: _Scan) -> Iterator[tuple[int, Any]]:
    """Line and value of each item of the array that comes next."""
    scan.take("[")
    if scan.peek() == "]":
        scan.at += 1
        return
    while True:
        scan.peek()
        line = scan.line()
        yield line, scan.value()
        if scan.peek() == "]":
            break
        scan.take(",")
    scan.at += 1


def _wrapped(scan: _Scan, log: FaultLog) -> Iterator[Found]:
    """The objects of the only array in the object that comes next.

    What else the object holds must be plain (a version, a name), so that nothing is left out.
    """
    place = f"{scan.name}:{scan.line()}"
    arrays, other = _outline(scan)
    if other or len(arrays) != 1:
        found = ", ".join(f"'{key}'" for key in [*arrays, *other][:8]) or "no list"
        raise DataError(
            f"one object that holds {found} where one list of rows was expected",
            place,
            "name one list behind a colon (data.json:train), or write the rows as an array",
            "not-an-array",
        )
    ((_, start),) = arrays.items()
    inner = _Scan(scan.text, scan.name)
    inner.at = start
    yield from _objects(inner, log)


def _outline(scan: _Scan) -> tuple[dict[str, int], list[str]]:
    """Keys of an object: those of arrays with where they begin, and those of objects."""
    arrays: dict[str, int] = {}
    other: list[str] = []
    scan.take("{")
    while scan.peek() != "}":
        if scan.peek() != '"':
            raise scan.malformed("Expecting property name enclosed in double quotes")
        key = scan.value()
        scan.take(":")
        opening, start = scan.peek(), scan.at
        scan.value()
        if opening == "[":
            arrays[key] = start
        elif opening == "{":
            other.append(key)
        if scan.peek() != "}":
            scan.take(",")
    scan.at += 1
    scan.end()
    return arrays, other


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields; a key that stands twice would lose a value in silence."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key '{twice}' stands twice in one object")
    return fields


def _constant(word: str) -> float | None:
    """``NaN`` is a missing value here as in frames; the infinities are numbers."""
    return None if word == "NaN" else float(word)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _cause(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "malformed JSON: nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        where = f" at column {error.colno}"
        return f"malformed JSON: {error.msg}{where}"
    said = str(error).split(";")[0]
    return f"malformed JSON: {said}"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return True


def _no_object(value: Any, place: str) -> Fault:
    names = {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}
    found = names.get(type(value), "a number")
    return Fault(
        f"a row is an object of named fields, this is {found}",
        place,
        'write it as {"text": …}',
        "not-an-object",
    )
