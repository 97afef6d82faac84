"""Bytes to text: physical lines, byte-order marks, and what is not UTF-8, said with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from luthier.core.errors import DataError, Fault

#: A row found: its physical line and its fields.
Found = tuple[int, Mapping[str, Any]]

_BOM = b"\xef\xbb\xbf"
_CURE = "convert the file: iconv -f LATIN1 -t UTF-8 old > new (or -f CP1252, as it was written)"


def physical_lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, int, bytes]]:
    r"""Line number, byte offset and bytes of each line; only ``\n`` ends a line.

    Raises:
        DataError: the file is UTF-16.
    """
    offset = 0
    for number, line in enumerate(stream, start=1):
        if number == 1:
            _refuse_utf16(line, name)
        skip = len(_BOM) if number == 1 and line.startswith(_BOM) else 0
        yield number, offset + skip, line[skip:]
        offset += len(line)


def decoded(raw: bytes, name: str) -> str:
    """A whole file as text.

    Raises:
        DataError: it is not UTF-8; names the line and the byte's offset.
    """
    _refuse_utf16(raw, name)
    skip = len(_BOM) if raw.startswith(_BOM) else 0
    try:
        return raw[skip:].decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, skip + error.start) + 1
        raise DataError.of([bad_utf8(error, name, line, skip)]) from None


def bad_utf8(error: UnicodeDecodeError, name: str, line: int, offset: int) -> Fault:
    """The fault of bytes that are no UTF-8; ``offset`` is where the decoded bytes began."""
    byte = error.object[error.start]
    message = f"not UTF-8: byte 0x{byte:02x} at offset {offset + error.start} of the file"
    return Fault(message, f"{name}:{line}", _CURE, "encoding")


def _refuse_utf16(raw: bytes, name: str) -> None:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        cure = "convert the file: iconv -f UTF-16 -t UTF-8 old > new"
        raise DataError("not UTF-8: the file begins as UTF-16 does", f"{name}:1", cure, "encoding")
