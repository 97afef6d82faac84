"""The run folder: one place knows its names; what is read is whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from luthier.core import rundir
from luthier.core.errors import UserError
from luthier.core.rundir import RunDir, open_run, read_lines, write_json, write_lines, write_text


def test_the_names_are_the_designs(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    expected = {
        "recipe": "recipe.yaml",
        "environment": "environment.json",
        "events": "events.jsonl",
        "checkpoints": "checkpoints",
        "model": "model",
        "evaluation": "evaluation.json",
        "scores": "scores.jsonl",
        "samples": "samples.jsonl",
        "report": "report.html",
        "card": "README.md",
    }
    for attribute, name in expected.items():
        assert getattr(run, attribute) == tmp_path / name
    assert run.checkpoint(400) == tmp_path / "checkpoints" / "step-000400"
    assert run.checkpoint(12_345_678).name == "step-12345678"


def test_checkpoints_come_oldest_first_and_nothing_else_does(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.saved() == []
    for name in ("step-000900", "step-000100", "step-1000000", ".step-000200.tmp", "step-12", "x"):
        (run.checkpoints / name).mkdir(parents=True)
    (run.checkpoints / "step-000300").write_text("a file")
    assert [step for step, _ in run.saved()] == [100, 900, 1_000_000]
    assert run.saved()[0][1] == run.checkpoint(100)


def test_what_is_a_run_and_what_is_finished(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    seen = [(run.is_run, run.finished)]
    for make in (run.recipe.touch, run.environment.touch, run.model.mkdir, run.card.touch):
        make()
        seen.append((run.is_run, run.finished))
    never, made, done = (False, False), (True, False), (True, True)
    assert seen == [never, never, made, made, done], "the card comes last"


def test_a_run_in_stages_is_finished_when_each_stage_is(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    stages = [RunDir(tmp_path / "1-a"), RunDir(tmp_path / "2-b")]
    rundir.write_stage_list(run, stages)
    assert run.stages == stages
    run.card.touch()
    for stage in stages:
        assert not run.finished
        stage.model.mkdir(parents=True)
        stage.card.touch()
    assert run.finished
    run.stage_list.write_text(json.dumps({"stages": ["../../etc"]}))
    assert run.stages == [RunDir(tmp_path / "etc")], "a stage lies inside its run"


@pytest.mark.parametrize("made", [False, True])
def test_opening_what_is_no_run(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "x"
    if made:
        folder.mkdir()
    with pytest.raises(UserError, match="is not a run" if made else "no folder"):
        open_run(folder)


def test_opening_a_run(tmp_path: Path) -> None:
    RunDir(tmp_path).recipe.touch()
    RunDir(tmp_path).environment.touch()
    assert open_run(str(tmp_path)) == RunDir(tmp_path)


def test_json_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inner" / "a.json"
    write_json(path, {"ü": [1, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": [1, None]}
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": [1, None]}

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "half")
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": [1, None]}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"], "no temporary file is left"


ROWS: list[dict[str, Any]] = [{"a": "line\nbreak \u2028 ☃"}, {}, {"b": [1.5, None]}]


def test_lines_read_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert list(read_lines(path)) == []
    write_lines(path, iter(ROWS))
    assert list(read_lines(path)) == ROWS
    with path.open("a") as stream:
        stream.write("\n")
    assert list(read_lines(path)) == ROWS


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    """A killed run leaves half a line behind; the report must still open."""
    path = tmp_path / "events.jsonl"
    for tail in (b'{"loss": 1.', b'{"text": "\xc3'):
        write_lines(path, ROWS)
        with path.open("ab") as stream:
            stream.write(tail)
        assert list(read_lines(path)) == ROWS


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(UserError) as caught:
        list(read_lines(path))
    assert caught.value.faults[0].place == f"{path}:2"
