"""A part of a file, named behind a colon: one list of several, a file without a header."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.core.records import Labelled, SourceTarget
from luthier.data.recognise import read_records, recognise
from luthier.data.sources import read

LISTS = {"train": [["hi", "greet"], ["bye", "part"]], "val": [["yo", "greet"]], "version": 1}


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    path = tmp_path / "data_full.json"
    path.write_text(json.dumps(LISTS, indent=1))
    return path


def test_one_list_of_several(lists: Path) -> None:
    (source,) = read(f"{lists}:train")
    assert source.name == f"{lists}:train"
    assert [dict(row.fields) for row in source.rows] == [
        {"column_1": "hi", "column_2": "greet"},
        {"column_1": "bye", "column_2": "part"},
    ]
    assert [row.origin.line for row in source.rows] == [3, 7]
    (other,) = read(f"{lists}:val")
    (row,) = other.rows
    assert (dict(row.fields), row.origin.line) == ({"column_1": "yo", "column_2": "greet"}, 13)
    assert source.fingerprint != other.fingerprint


def test_two_cells_are_what_the_objective_learns_from(lists: Path) -> None:
    (source,) = read(f"{lists}:train")
    fmt, said = recognise(source.rows, accept=(Labelled,))
    assert said == "label (text='column_1', label='column_2')"
    records, _ = read_records(source, fmt, {}, "refuse")
    assert [getattr(record, "label", "") for record in records] == ["greet", "part"]
    assert recognise(source.rows, accept=(SourceTarget,))[1].startswith("source_target (")
    with pytest.raises(DataError, match="say which: `format: label`"):
        recognise(source.rows)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("trian", "did you mean 'train'"),
        ("version", "holds no list 'version'; its lists: 'train', 'val'"),
    ],
)
def test_a_part_that_is_not_there(lists: Path, part: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(f"{lists}:{part}")


def test_items_that_are_no_rows_are_faults_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"a": [["x", "y"],\n{"text": "z"},\n3], "b": []}')
    (source,) = read(f"{path}:a", malformed="skip")
    assert [dict(row.fields) for row in source.rows] == [
        {"column_1": "x", "column_2": "y"},
        {"text": "z"},
    ]
    assert [fault.place for fault in source.skipped] == [f"{path}:3"]


def test_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text('a\tb\n"c\nd"\te\nf\n')
    (source,) = read(f"{path}:headless", malformed="skip")
    assert [dict(row.fields) for row in source.rows] == [
        {"column_1": "a", "column_2": "b"},
        {"column_1": "c\nd", "column_2": "e"},
    ]
    assert [row.origin.line for row in source.rows] == [1, 2]
    assert len(source.skipped) == 1
    with pytest.raises(DataError, match="no part 'train'"):
        read(f"{path}:train")


def test_other_files_have_no_parts_and_missing_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a"}')
    with pytest.raises(DataError, match=r"'\.jsonl' files have no part 'train'"):
        read(f"{tmp_path / 't.jsonl'}:train")
    with pytest.raises(DataError, match=r"no such file"):
        read(f"{tmp_path / 'u.json'}:train")


def test_a_colon_in_a_files_own_name_is_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t.json:a"
    path.with_name("t.json").write_text('{"a": [], "b": []}')
    path.write_text('{"text": "a"}')
    with pytest.raises(DataError, match="no suffix of a data file"):
        read(str(path))
