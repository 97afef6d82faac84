"""Whole runs on rows that are known: the same run without reading, and never on other rows."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import sums, tiny_recipe

import luthier
from luthier.assemble import assemble
from luthier.core import cache
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.data import identity, sides
from luthier.preparing import prepare
from luthier.run import Run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


def rested(path: Path, seconds: int = 60) -> None:
    when = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(when, when))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in sums() * 20), encoding="utf-8")
    rested(path)
    return path


def recipe(tmp_path: Path, rows: Path, name: str, **training: Any) -> dict[str, Any]:
    made = tiny_recipe(tmp_path / name, data={"train": str(rows), "subset": 60})
    made["training"] |= {"max_steps": 2, "evaluate_every": 2, **training}
    return made


def hidden_change(path: Path) -> None:
    """A figure in the middle of the file, behind an unchanged size and time."""
    seen = path.stat()
    text = path.read_bytes()
    at = text.index(b"sum is 7", identity.BLOCK) + 7
    path.write_bytes(text[:at] + b"9" + text[at + 1 :])
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "BLOCK", 64)
    monkeypatch.setattr(identity, "BETWEEN", 0)


def refused(*_given: Any) -> Any:
    raise AssertionError("rows were read")


def figures(run: Run) -> Any:
    found = dict(run.evaluation)
    del found["seconds"]
    return found, run.samples


def test_a_second_run_trains_and_measures_without_reading(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = luthier.train(recipe(tmp_path, rows, "one"), quiet=True)
    monkeypatch.setattr(sides, "read_parts", refused)
    second = luthier.train(recipe(tmp_path, rows, "two"), quiet=True)
    assert figures(first) == figures(second)
    rows.unlink()
    with pytest.raises(AssertionError, match="rows were read"):
        luthier.train(recipe(tmp_path, rows, "three"), quiet=True)


def test_preparing_makes_the_rows_known(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipes.load(recipe(tmp_path, rows, "one"))
    (first,) = prepare(made)
    monkeypatch.setattr(sides, "read_parts", refused)
    (second,) = prepare(made)
    assert first.counts == second.counts
    assert second.said == tuple(line for line in first.said if "training a tokenizer" not in line)
    assemble(made, lambda line: None)
    with pytest.raises(AssertionError, match="rows were read"):
        prepare(made, verify=True)


def test_a_run_on_rows_that_changed_is_not_continued(tmp_path: Path, rows: Path) -> None:
    luthier.train(recipe(tmp_path, rows, "one"), quiet=True)
    again: dict[str, Any] = {"resume": tmp_path / "one", "overrides": ["training.max_steps=3"]}
    kept = rows.read_bytes()
    rows.write_bytes(kept.replace(b"sum is 7", b"sum is 9"))
    with pytest.raises(RecipeError, match="changed since it began: training data"):
        luthier.train(**again)
    rows.write_bytes(kept)  # the same rows, at another time
    assert luthier.train(**again).finished


@pytest.mark.usefixtures("small_sample")
def test_verify_finds_rows_that_changed_behind_their_time(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    luthier.train(recipe(tmp_path, rows, "one"), quiet=True)
    hidden_change(rows)
    again: dict[str, Any] = {"resume": tmp_path / "one", "overrides": ["training.max_steps=3"]}
    with pytest.raises(RecipeError, match="changed since it began: training data"):
        luthier.train(**again, verify=True)
    assert f"changed behind an unchanged size and time: {rows}" in capsys.readouterr().out


@pytest.mark.usefixtures("small_sample")
def test_tokens_that_are_gone_are_not_made_of_other_rows(tmp_path: Path, rows: Path) -> None:
    """The note stands, the tokens do not, and the file is another one behind its time."""
    made, said = recipes.load(recipe(tmp_path, rows, "one")), list[str]()
    old = assemble(made, said.append).train[0].fingerprint
    shutil.rmtree(cache.folder() / "tokens")
    hidden_change(rows)
    new = assemble(made, said.append)
    assert any(line.startswith("begun anew: ") and str(rows) in line for line in said)
    assert new.train[0].fingerprint != old
    shutil.rmtree(cache.folder() / "tokens")
    hidden = rows.stat()
    rows.write_bytes(rows.read_bytes().replace(b"sum is 9", b"sum is 3"))
    os.utime(rows, ns=(hidden.st_atime_ns, hidden.st_mtime_ns))
    (prepared,) = prepare(made)
    assert prepared.counts["train"]["fingerprint"] not in (old, new.train[0].fingerprint)
