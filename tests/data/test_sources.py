"""Files to rows: physical lines, packed files, and faults that name line, cause and cure."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import DataError, Fault
from luthier.data.faults import FaultLog
from luthier.data.files import rows as file_rows
from luthier.data.sources import read


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(path: Path, **settings: Any) -> list[int]:
    (source,) = read(path, **settings)
    return [row.origin.line for row in source.rows]


def faults(path: Path, **settings: Any) -> tuple[Fault, ...]:
    with pytest.raises(DataError) as caught:
        read(path, **settings)
    return caught.value.faults


def test_jsonl_counts_blank_lines_and_tolerates_bom_and_crlf(tmp_path: Path) -> None:
    text = '\ufeff{"text": "a"}\r\n\r\n\n   \n{"text": "b\u2028c"}\n{"text": "d"}'
    (source,) = read(write(tmp_path / "a.jsonl", text))
    assert [(r.origin.line, r.fields["text"]) for r in source.rows] == [
        (1, "a"),
        (5, "b\u2028c"),
        (6, "d"),
    ]
    assert str(source.rows[1].origin) == f"{tmp_path / 'a.jsonl'}:5"
    assert source.skipped == ()


def test_fingerprint_is_of_the_bytes_on_disk(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(b'{"text": "a"}\n'))
    (source,) = read(path)
    assert source.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.name == str(path)


def test_malformed_json_names_line_column_and_cause(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"text": "fine"}\n{"text": "a"  "b": 1}\n')
    (fault,) = faults(path)
    assert str(fault).startswith(
        f"{path}:2: malformed JSON: Expecting ',' delimiter at column 15\n  cure: "
    )


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (b'{"text": "a", "text": "b"}', "malformed-json", "'text' stands twice"),
        (b'["a"]', "not-an-object", "an array"),
        (b'"a"', "not-an-object", "a string"),
        (b"12", "not-an-object", "a number"),
        (b"null", "not-an-object", "null"),
        (b'{"n": ' + b"9" * 5000 + b"}", "malformed-json", "4300"),
        (b'{"n": ' + b"[" * 100_000, "malformed-json", "nested too deeply"),
        (b'{"text": "caf\xe9"}', "encoding", "byte 0xe9 at offset 31"),
        (b"{", "malformed-json", "at column 2"),
    ],
)
def test_a_bad_line_is_a_fault_and_never_a_traceback(
    tmp_path: Path, line: bytes, code: str, said: str
) -> None:
    path = write(tmp_path / "t.jsonl", b'{"text": "good"}\n\n' + line + b'\n{"text": "z"}\n')
    (fault,) = faults(path)
    assert (fault.code, fault.place) == (code, f"{path}:3")
    assert said in fault.message
    assert fault.cure
    (source,) = read(path, malformed="skip")
    assert [row.origin.line for row in source.rows] == [1, 4]
    assert source.skipped == (fault,)


def test_ten_faults_are_spelled_out_and_the_rest_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"text": "a"}\n' + "nope\n" * 47)
    found = faults(path)
    assert [fault.place for fault in found[:10]] == [f"{path}:{n}" for n in range(2, 12)]
    assert len(found) == 11
    assert found[10].message == "37 more rows are wrong"
    (source,) = read(path, malformed="skip")
    assert len(source.skipped) == 47


def test_exactly_ten_faults_leave_nothing_to_count(tmp_path: Path) -> None:
    assert len(faults(write(tmp_path / "t.jsonl", '{"a": 1}\n' + "nope\n" * 10))) == 10


def test_skipping_every_row_is_still_an_error(tmp_path: Path) -> None:
    assert faults(write(tmp_path / "t.jsonl", "nope\n"), malformed="skip")


def test_several_bad_files_are_reported_together(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, "nope\n") for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(DataError) as caught:
        read([str(path) for path in paths])
    assert [fault.place for fault in caught.value.faults] == [f"{path}:1" for path in paths]


def test_json_nan_is_a_missing_value(tmp_path: Path) -> None:
    (source,) = read(write(tmp_path / "t.jsonl", '{"text": "a", "score": NaN}\n'))
    assert source.rows[0].fields["score"] is None


def test_json_array_rows_know_their_lines(tmp_path: Path) -> None:
    text = '[\n  {"text": "a"},\n\n  {\n    "text": "b"\n  }, {"text": "c"}\n]\n'
    assert lines(write(tmp_path / "t.json", text)) == [2, 4, 6]


def test_json_object_with_one_list(tmp_path: Path) -> None:
    text = '{\n "version": "1.1",\n "data": [\n  {"text": "a"},\n  {"text": "[b"}]}\n'
    assert lines(write(tmp_path / "t.json", text)) == [4, 5]


def test_json_lines_under_the_wrong_suffix(tmp_path: Path) -> None:
    assert lines(write(tmp_path / "t.json", '\ufeff{"text": "a"}\n\n{"text": "b"}\n')) == [1, 3]


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ('{"train": [1], "test": [2]}', 1, "not-an-array"),
        ('{"data": [], "meta": {"a": [1]}}', 1, "not-an-array"),
        ('\n{"text": "a"}', 2, "not-an-array"),
        ('[{"a": 1},\n {"b": 2}\n {"c": 3}]', 3, "malformed-json"),
        ('[{"a": 1},\n {"b" 2}]', 2, "malformed-json"),
        ('[{"a": 1},\n', 2, "malformed-json"),
        ('{"data": [{"a": 1}],\n data2: 3}', 2, "malformed-json"),
        ('{"data":\n [{"a": 1}]}\n}', 3, "malformed-json"),
        ('"text"', 1, "malformed-json"),
        ("[" * 100_000, 1, "malformed-json"),
    ],
)
def test_malformed_json_files(tmp_path: Path, text: str, place: int, code: str) -> None:
    path = write(tmp_path / "t.json", text)
    for policy in ("refuse", "skip"):
        (fault,) = faults(path, malformed=policy)
        assert (fault.place, fault.code) == (f"{path}:{place}", code)


def test_text_behind_a_json_array_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", '[{"a": 1}]\n[{"a": 2}]\n')
    assert faults(path)[0].place == f"{path}:2"


def test_json_array_names_items_that_are_no_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", '[{"a": 1},\n 3,\n {"a": 2}]')
    assert faults(path)[0].place == f"{path}:2"
    assert lines(path, malformed="skip") == [1, 3]


def test_csv_lines_are_where_records_start(tmp_path: Path) -> None:
    text = 'text,label\n"two\nlines, one cell",a\n\nplain,b\n"say ""hi""",\n'
    (source,) = read(write(tmp_path / "t.csv", text))
    assert [(row.origin.line, dict(row.fields)) for row in source.rows] == [
        (2, {"text": "two\nlines, one cell", "label": "a"}),
        (5, {"text": "plain", "label": "b"}),
        (6, {"text": 'say "hi"', "label": ""}),
    ]


def test_csv_faults(tmp_path: Path) -> None:
    text = b'text,label\na,b,c\nonly\n"x"y,b\ncaf\xe9,b\nfine,b\n"open,b\nmore\n'
    path = write(tmp_path / "t.csv", text)
    found = faults(path)
    assert [(fault.place.rsplit(":", 1)[1], fault.code) for fault in found] == [
        ("2", "cells"),
        ("3", "cells"),
        ("4", "malformed-csv"),
        ("5", "encoding"),
        ("7", "malformed-csv"),
    ]
    assert "never closed (read on to line 8)" in found[4].message
    assert f"offset {text.index(0xE9)} " in found[3].message
    assert lines(path, malformed="skip") == [6]


@pytest.mark.parametrize(
    ("header", "code"), [("text,text\na,b\n", "columns"), ('"open\n', "malformed-csv")]
)
def test_csv_header_that_cannot_be_used(tmp_path: Path, header: str, code: str) -> None:
    assert faults(write(tmp_path / "t.csv", header), malformed="skip")[0].code == code


def test_csv_delimiters_long_cells_and_bom(tmp_path: Path) -> None:
    long = "x" * 300_000
    before = csv.field_size_limit()
    (source,) = read(write(tmp_path / "t.csv", f"\ufefftext;label\n{long};a,b\n"))
    assert source.rows[0].fields == {"text": long, "label": "a,b"}
    assert csv.field_size_limit() == before
    (source,) = read(write(tmp_path / "t.tsv", "text\tlabel\na;b,c\td\n"))
    assert source.rows[0].fields == {"text": "a;b,c", "label": "d"}


def test_txt_is_one_document(tmp_path: Path) -> None:
    (source,) = read(write(tmp_path / "t.txt", "\ufeffone\n\ntwo\n"))
    assert [(r.origin.line, r.fields) for r in source.rows] == [(1, {"text": "one\n\ntwo\n"})]


@pytest.mark.parametrize("name", ["t.txt", "t.json", "t.jsonl", "t.csv"])
@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf"])
def test_files_without_rows_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    if name == "t.csv" and content == b" \n\n":
        content = b"text,label\n"
    assert faults(write(tmp_path / name, content))[0].code == "no-rows"


@pytest.mark.parametrize("name", ["t.txt", "t.json", "t.jsonl", "t.csv"])
def test_utf16_is_named(tmp_path: Path, name: str) -> None:
    (fault,) = faults(write(tmp_path / name, "text\n".encode("utf-16")))
    assert fault.code == "encoding"
    assert "UTF-16" in fault.message


@pytest.mark.parametrize("name", ["t.txt", "t.json"])
def test_bad_utf8_in_a_whole_file_names_its_line(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"\xef\xbb\xbfone\ntwo\ncaf\xe9")
    (fault,) = faults(path)
    assert fault.place == f"{path}:3"
    assert "0xe9 at offset 14 " in fault.message


@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)]
)
def test_packed_files(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b'\n{"text": "a"}\n' * 2000)
    assert len(lines(write(tmp_path / f"t.jsonl.{suffix}", packed))) == 2000
    assert faults(write(tmp_path / f"u.jsonl.{suffix}", packed[:-12]))[0].code == "unpack"
    assert faults(write(tmp_path / f"v.jsonl.{suffix}", b'{"text": "a"}'))[0].code == "unpack"


def test_limit_stops_before_what_lies_beyond(tmp_path: Path) -> None:
    assert lines(write(tmp_path / "t.jsonl", '{"a": 1}\n{"a": 2}\nnope\n'), limit=2) == [1, 2]


JSON_LINE = st.one_of(
    st.just(""),
    st.just("  \t"),
    st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3).map(
        lambda fields: json.dumps(fields, ensure_ascii=False)
    ),
)


def found_in(folder: Path, name: str, content: bytes) -> list[tuple[int, dict[str, Any]]]:
    path = write(folder / name, content)
    log = FaultLog("refuse")
    found = [(line, dict(fields)) for line, fields in file_rows(path, log)]
    log.finish(1)
    return found


@given(st.lists(JSON_LINE, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_jsonl_line_numbers(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], end: str, closed: bool
) -> None:
    content = end.join(texts) + (end if closed else "")
    expected = [(i, json.loads(t)) for i, t in enumerate(texts, start=1) if t.strip(" \t")]
    folder = tmp_path_factory.getbasetemp()
    assert found_in(folder, "p.jsonl", content.encode()) == expected


CELL = st.text(st.sampled_from('ab,"\n\r;é '), max_size=6)


@given(st.lists(st.tuples(CELL, CELL), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_csv_line_numbers(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], end: str
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["x", "y"])
    expected = []
    for x, y in cells:
        expected.append((out.getvalue().count("\n") + 1, {"x": x, "y": y}))
        writer.writerow([x, y])
    folder = tmp_path_factory.getbasetemp()
    assert found_in(folder, "p.csv", out.getvalue().encode()) == expected
