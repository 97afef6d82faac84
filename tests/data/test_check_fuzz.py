"""The reader under a check: whatever the bytes are, no crash, and no row lost uncounted."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.core.errors import Fault
from luthier.core.records import Row
from luthier.data.check import Ask, check
from luthier.data.sources import stream

SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
named = st.dictionaries(
    st.sampled_from(
        ["prompt", "response", "text", "label", "messages", "chosen", "rejected", "tags"]
    ),
    values,
    max_size=4,
)
json_lines = st.lists(
    (values | named).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30),
    max_size=12,
).map(b"\n".join)


def blank(line: bytes) -> bool:
    """As JSON lines are: nothing but spaces, tabs and carriage returns."""
    return not line.strip(b" \t\r")


@SETTINGS
@given(raw=st.binary(max_size=200) | json_lines)
def test_every_line_is_a_row_or_a_fault(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        path.write_bytes(raw)
        (source,) = stream(str(path))
        items = list(source.items)
        report = check(Ask([("rows", str(path))]))
    places = [str(item.origin) if isinstance(item, Row) else item.place for item in items]
    at = [int(place.removeprefix(f"{path}:")) for place in places if place != str(path)]
    assert at == sorted(at)
    utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    body = raw.removeprefix(b"\xef\xbb\xbf")
    written = sum(not blank(line) for line in body.split(b"\n"))
    rows = sum(isinstance(item, Row) for item in items)
    faults = sum(isinstance(item, Fault) and item.place != str(path) for item in items)
    if not utf16:
        assert rows + faults == written
        assert report.rows == written
    assert bool(report.findings.totals) or written > 0


@SETTINGS
@given(
    raw=st.binary(max_size=120) | json_lines,
    suffix=st.sampled_from([".csv", ".json", ".txt", ".tsv", ".jsonl.gz"]),
)
def test_no_bytes_crash_the_check(raw: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"rows{suffix}")
        path.write_bytes(raw)
        report = check(Ask([("rows", str(path))]))
    assert report.rows or report.findings.errors
