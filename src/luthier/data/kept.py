"""Records as JSON lines in the cache, exactly as they were; see :mod:`luthier.data.sides`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from luthier.core import records as known
from luthier.core.records import Record


def keep(path: Path, records: Sequence[Record]) -> bool:
    """Writes records, each with its type; false where one is of a type that only a user knows."""
    with path.open("w", encoding="ascii") as stream:
        for record in records:
            name = type(record).__name__
            if getattr(known, name, None) is not type(record):
                return False
            # By way of Python's json: it spells halves of surrogate pairs, which files may hold.
            plain = _adapter(name).dump_python(record)
            stream.write(f"{name}\t{json.dumps(plain)}\n")
    return True


def kept(path: Path) -> Iterator[Record]:
    """The records that :func:`keep` wrote.

    Raises:
        OSError: the file is not there.
    """
    with path.open(encoding="ascii") as stream:
        for line in stream:
            name, _, plain = line.partition("\t")
            yield _adapter(name).validate_python(json.loads(plain))


@cache
def _adapter(name: str) -> TypeAdapter[Record]:
    return TypeAdapter(getattr(known, name))
