"""What the tests of formats share: rows in, records or faults out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from luthier.core import kinds
from luthier.core.contracts import Format
from luthier.core.errors import DataError, Fault
from luthier.core.records import Origin, Record, Row
from luthier.data.recognise import read_records
from luthier.data.sources import Source

ORIGIN = Origin("train.jsonl", 718)


def build(name: str, **settings: Any) -> Format:
    config = kinds.config("data/formats", {"kind": name, **settings})
    fmt: Format = kinds.build("data/formats", config)
    return fmt


def read(name: str, fields: Mapping[str, Any], **settings: Any) -> Record:
    return build(name, **settings).read(Row(fields, ORIGIN))


def fault(name: str, fields: Mapping[str, Any], **settings: Any) -> Fault:
    with pytest.raises(DataError) as caught:
        read(name, fields, **settings)
    (found,) = caught.value.faults
    assert found.place == "train.jsonl:718"
    assert found.cure
    return found


def read_all(
    name: str, *rows: Mapping[str, Any], limit: int | None = None, **settings: Any
) -> tuple[list[Record], list[Fault]]:
    """Records and faults of rows that stand from line 1 on."""
    found = tuple(Row(row, Origin("t.jsonl", i)) for i, row in enumerate(rows, start=1))
    source = Source("t.jsonl", found, (), "")
    return read_records(source, build(name, **settings), {}, "skip", limit)
