"""What a recipe may name as data: paths, folders, rows in memory, frames, Parquet, the hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import DataError
from luthier.data.sources import Source, read

STANDIN = Path(__file__).with_name("hub_standin.py")


def fields(source: Source) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in source.rows]


def code_of(value: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(value)
    return caught.value.faults[0].code


def test_folder_reads_every_data_file_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("text\nb\n")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "LICENSE").write_text("…")
    (tmp_path / "SOURCE.txt").write_text("where it came from")
    (tmp_path / ".hidden.jsonl").write_text("nope")
    (tmp_path / "inner.json").mkdir()
    sources = read(tmp_path)
    assert [Path(source.name).name for source in sources] == ["a.jsonl", "b.csv"]
    assert code_of(tmp_path / "inner.json") == "no-rows"


def test_list_of_paths_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    sources = read([tmp_path / "b.txt", "~/a.txt"])
    assert [fields(source) for source in sources] == [[{"text": "b"}], [{"text": "a"}]]


def test_an_existing_path_is_a_file_though_it_looks_like_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "a.txt").write_text("a")
    assert fields(read("owner/name")[0]) == [{"text": "a"}]


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("data/trian.jsonl", "did you mean 'data/train.jsonl'?"),
        ("data/train.json", "did you mean 'data/train.jsonl'?"),
        ("data/zzz.csv", "'data' holds: train.jsonl"),
        ("dta/train.jsonl", "check the path"),
        ("bare", "'.' holds: data"),
    ],
)
def test_missing_files_name_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cure: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("{}")
    with pytest.raises(DataError) as caught:
        read(name)
    assert caught.value.faults[0].code == "no-file"
    assert caught.value.faults[0].cure == cure


def test_unknown_suffixes_and_overlong_names(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("…")
    assert code_of(tmp_path / "a.docx") == "suffix"
    assert code_of("a text instead of a path " * 400) == "no-file"


def test_rows_in_memory() -> None:
    numpy = pytest.importorskip("numpy")
    rows = [{"text": "a", "label": numpy.int64(3), "x": float("nan")}, {"text": "b", 7: (1, 2)}]
    (source,) = read(rows)
    assert fields(source) == [{"text": "a", "label": 3, "x": None}, {"text": "b", "7": [1, 2]}]
    assert [str(row.origin) for row in source.rows] == ["memory:1", "memory:2"]
    canonical = '{"label":3,"text":"a","x":null}\n{"7":[1,2],"text":"b"}\n'
    assert source.fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    assert len(read(rows, limit=1)[0].rows) == 1


def test_order_of_keys_leaves_the_fingerprint_alone() -> None:
    one, two = read([{"a": 1, "b": 2}])[0], read([{"b": 2, "a": 1}])[0]
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != read([{"a": 1, "b": 3}])[0].fingerprint


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"text": ["a", None], "n": [1, 2], "x": [0.5, float("nan")], 3: [[1], pandas.NA]},
        index=[7, 7],
    )
    (source,) = read(frame)
    assert fields(source) == [
        {"text": "a", "n": 1, "x": 0.5, "3": [1]},
        {"text": None, "n": 2, "x": None, "3": None},
    ]
    assert [type(value) for value in source.rows[0].fields.values()] == [str, int, float, list]
    assert code_of(frame.set_axis(["a", "a", "b", "c"], axis=1)) == "columns"
    assert code_of(frame[:0]) == "no-rows"


def test_datasets_give_class_names_for_class_indices() -> None:
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": label, "labels": datasets.List(label)}
    )
    rows = {"text": ["a", "b"], "label": [1, -1], "labels": [[0, 1], []]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    assert fields(read(dataset)[0]) == [
        {"text": "a", "label": "yes", "labels": ["no", "yes"]},
        {"text": "b", "label": None, "labels": []},
    ]
    with pytest.raises(DataError, match="DatasetDict of train, test: choose one"):
        read(datasets.DatasetDict({"train": dataset, "test": dataset}))


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    turns = [[{"role": "user", "content": "hi"}], None]
    parquet.write_table(pyarrow.table({"messages": turns, "x": [float("nan"), 1.0]}), path)
    (source,) = read(path)
    assert fields(source) == [{"messages": turns[0], "x": None}, {"messages": None, "x": 1.0}]
    assert [row.origin.line for row in source.rows] == [1, 2]
    path.write_bytes(path.read_bytes()[:-20])
    assert code_of(path) == "parquet"


def test_what_datasets_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder, num_shards=2)
    sources = read(folder)
    assert [source.name[-5:] for source in sources] == ["arrow", "arrow"]
    assert [fields(source) for source in sources] == [
        [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}],
        [{"text": "c", "label": None}],
    ]
    assert [row.origin.line for source in sources for row in source.rows] == [1, 2, 1]
    path = next(folder.glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:100])
    assert code_of(path) == "arrow"


@pytest.mark.parametrize("value", [None, 3, b"a.jsonl", {"text": ["a"]}, [{"a": 1}, "b.jsonl"]])
def test_anything_else_is_refused(value: Any) -> None:
    assert code_of(value) == "source"


def test_an_empty_list_has_no_rows() -> None:
    assert code_of([]) == "no-rows"


def ask_the_hub(folder: Path, *names: str, **variables: str) -> list[dict[str, Any]]:
    environment = {**os.environ, "HF_HOME": str(folder), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_ENDPOINT", None)
    environment.pop("HF_HUB_OFFLINE", None)
    environment.pop("HF_DATASETS_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, str(STANDIN), *names],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_hub_by_name_split_and_configuration(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    said = ask_the_hub(
        tmp_path,
        "luthier/tiny",
        "luthier/tiny:default/test",
        "luthier/tiny:dev",
        "luthier/tiny:other/train",
        "luthier/absent",
    )
    assert said[0] == {
        "name": "luthier/tiny:train",
        "rows": [
            [1, {"text": "I want my money back", "label": "refund"}],
            [2, {"text": "hello, there", "label": "greeting"}],
            [3, {"text": "lost parcel", "label": None}],
        ],
    }
    assert said[1]["rows"] == [[1, {"text": "good morning", "label": "greeting"}]]
    assert [answer["code"] for answer in said[2:]] == ["hub-split", "hub-config", "hub-missing"]
    assert "['train', 'test']" in said[2]["text"]


def test_the_hub_offline_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (said,) = ask_the_hub(tmp_path, "luthier/tiny", HF_HUB_OFFLINE="1")
    assert said["code"] == "hub-offline"
    assert "HF_HUB_OFFLINE" in said["text"]
