"""Rows checked and encoded by several processes: the same, to the last byte, as by one."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from data.test_check import FIXTURES, written

from luthier.core import workers
from luthier.core.cache import made
from luthier.core.errors import DataError
from luthier.core.recipe import DataSpec
from luthier.core.records import Example, Origin, Segment
from luthier.data import prepare
from luthier.data.check import Ask, Report, check, sides
from luthier.data.checks import _all
from luthier.data.parts import Part, read_parts
from luthier.data.personal import _SECRET, secrets
from luthier.data.prepare import Encoded, encode
from luthier.data.store import ExampleStore
from luthier.data.store_writer import StoreWriter
from luthier.data.vetting import vet
from luthier.objectives import sft


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


def told(report: Report) -> Any:
    rows = list((report.findings.rows or {}).items())  # their order counts
    return report.findings.plain(), rows, [vars(each) for each in report.sources]


@pytest.mark.parametrize("code", sorted(FIXTURES))
def test_pieces_of_any_size_show_the_same(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, known = sides(written(tmp_path, FIXTURES[code][0]))
    ask = Ask(found, known, by_row=True)
    whole = told(check(ask))
    assert code in whole[0]["totals"]
    for size in (1, 3):
        monkeypatch.setattr(_all, "_ROWS", size)
        assert told(check(ask)) == whole


def everything(folder: Path) -> list[str]:
    """All fixtures, each file under a name of its own."""
    names = []
    for code, (files, _) in FIXTURES.items():
        for name, content in files.items():
            names += written(folder, {f"{code}-{name}": content})
    return names


def test_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Ask([(name, name) for name in everything(tmp_path)], by_row=True)
    alone = told(check(ask))
    assert len(alone[0]["totals"]) > 25
    monkeypatch.setattr(workers, "AFTER", -1.0)
    monkeypatch.setattr(_all, "_ROWS", 7)
    started: list[int] = []
    plain = workers._Worker

    def counted(first: Any) -> Any:
        started.append(1)
        return plain(first)

    monkeypatch.setattr(workers, "_Worker", counted)
    assert told(check(Ask(ask.sides, by_row=True, workers=2))) == alone
    assert len(started) == 2


TABLE = {
    "position": np.array([0]),
    "token": np.array([2]),
    "wide": np.zeros((1, 2), dtype=np.float32),
}


def parts(tmp_path: Path, **settings: Any) -> tuple[DataSpec, Part]:
    rows: list[Any] = [
        {"prompt": f"question {i}", "response": builders.SENTENCES[i % 6]} for i in range(90)
    ]
    rows[40] = {"prompt": "long", "response": "word " * 300}
    rows[50] = {
        "prompt": "odd <|im_end|> <|endoftext|>",
        "response": "write to jane.roe@corp.co.uk",
    }
    for i in (61, 62):
        rows[i] = {"messages": [{"role": "user", "content": "never answered"}]}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = DataSpec(train=str(path), validation=0, malformed="skip", **settings)
    part, _ = read_parts(spec, objective(), 0, lambda line: None)
    return spec, part


def objective() -> Any:
    return sft.Objective(sft.Config())


def same(one: Encoded, other: Encoded) -> None:
    assert one.counts == other.counts
    assert one.examples.sources == other.examples.sources
    assert list(one.examples.arrays) == list(other.examples.arrays)
    for name, array in one.examples.arrays.items():
        assert array.dtype == other.examples.arrays[name].dtype, name
        assert np.array_equal(array, other.examples.arrays[name]), name


@pytest.mark.slow  # two processes import torch
def test_processes_encode_what_one_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, part = parts(tmp_path, overlong="right", workers=1)
    alone = encode(part, spec, objective(), builders.codec())
    assert alone.counts["cut"]["examples"] == 1
    assert alone.counts["template"]["special_text"] == 1
    found = vet(part, None, 0.0, ())
    monkeypatch.setattr(prepare, "_PIECE", 7)
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "pieces"))
    same(alone, encode(part, spec, objective(), builders.codec()))
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "processes"))
    monkeypatch.setattr(workers, "AFTER", -1.0)
    several = spec.model_copy(update={"workers": 2})
    same(alone, encode(part, several, objective(), builders.codec()))
    assert vet(part, None, 0.0, (), 2).plain() == found.plain()


def test_faults_keep_their_order_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, part = parts(tmp_path, workers=1)
    refusing = spec.model_copy(update={"malformed": "refuse"})
    said = []
    for size in (prepare._PIECE, 11):
        monkeypatch.setattr(prepare, "_PIECE", size)
        with pytest.raises(DataError, match="more examples like these") as caught:
            encode(part, refusing, objective(), builders.codec(16))
        said.append(caught.value.faults)
    assert said[0] == said[1]


def test_stores_are_joined_as_if_built_at_once(tmp_path: Path) -> None:
    spec, part = parts(tmp_path, overlong="drop")
    whole = encode(part, spec, objective(), builders.codec()).examples
    examples = list(whole)
    for cuts in ([0, 1, 1, 40, len(whole)], [0, len(whole)]):
        stores = [ExampleStore.build(examples[a:b]) for a, b in pairwise(cuts)]
        with made(tmp_path / str(len(cuts))) as folder, StoreWriter(folder) as writer:
            for store in stores:
                writer.add(store)
        assert writer.count == len(whole)
        written = ExampleStore.load(tmp_path / str(len(cuts)))
        for joined in (ExampleStore.joined(stores), written):
            assert joined.sources == whole.sources
            for name, array in whole.arrays.items():
                assert array.dtype == joined.arrays[name].dtype
                assert np.array_equal(array, joined.arrays[name])
    assert len(ExampleStore.joined([])) == 0


def test_token_types_that_come_late_are_0_before(tmp_path: Path) -> None:
    plain = Example((Segment(np.array([1, 2])),), {"lm": TABLE}, Origin("a", 1))
    typed = Example(
        (Segment(np.array([3]), token_types=np.array([1])),), {"lm": TABLE}, plain.origin
    )
    tmp_path.joinpath("store").mkdir()
    with StoreWriter(tmp_path / "store") as writer:
        for example in (plain, typed, plain):
            writer.add(ExampleStore.build([example]))
    made = ExampleStore.load(tmp_path / "store")
    assert made.arrays["token_types"].tolist() == [0, 0, 1, 0, 0]
    assert made.arrays["tokens"].tolist() == [1, 2, 3, 1, 2]
    assert made.arrays["lm.wide"].shape == (3, 2)


def test_what_is_not_written_whole_is_no_store(tmp_path: Path) -> None:
    spec, part = parts(tmp_path)
    refusing = spec.model_copy(update={"malformed": "refuse"})
    with pytest.raises(DataError):
        encode(part, refusing, objective(), builders.codec(16))
    left = [each for each in (tmp_path / "cache" / "tokens").iterdir() if each.is_dir()]
    assert left == []


KEYS = [
    "AKIAIOSFODNN7EXAMPLE",
    *(f"gh{letter}_{'a1' * 18}" for letter in "pousr"),
    f"github_pat_{'a' * 50}",
    f"sk-{'a1' * 10}",
    *(f"xox{letter}-1234567890" for letter in "abprs"),
    f"AIza{'b' * 35}",
    f"hf_{'c' * 30}",
    f"glpat-{'d' * 20}",
    "-----BEGIN RSA PRIVATE KEY-----",
    f"eyJ{'e' * 10}.eyJ{'f' * 10}.{'g' * 10}",
    *(f"{w}: {'h1' * 8}" for w in ("password", "PassWD", "api_key", "APIKEY", "Secret", "token")),
    "pa\u017f\u017fword=" + "i1" * 8,
    "ap\u0131key=" + "j1" * 8,
]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_passes_the_quick_look(key: str) -> None:
    text = f"here is {key} for you"
    found = [match.group() for match in secrets(text)]
    assert found == [match.group() for match in _SECRET.finditer(text)]
    assert found
