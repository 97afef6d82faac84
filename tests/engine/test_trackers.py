"""Where figures go: events.jsonl always, without the steps a resumed run does again."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import RecipeError
from luthier.core.rundir import RunDir, read_lines
from luthier.engine.trackers import Bar, EventFile, Lines, TensorBoard, open_trackers, say


def step(number: int, loss: float = 1.5) -> dict[str, Any]:
    return {
        "kind": "step",
        "step": number,
        "epoch": 0.1 * number,
        "tokens": 100 * number,
        "loss": loss,
        "terms": {"nll": loss},
        "learning_rate": 1e-3,
        "grad_norm": 0.7,
        "tokens_per_second": 5000.0,
        "memory": 2**30,
        "seconds": 1.0,
        "skipped": 0,
    }


def validation(number: int) -> dict[str, Any]:
    return {"kind": "validation", "step": number, "loss": 1.25, "terms": {"nll": 1.25}}


WARNING = {"kind": "warning", "step": 3, "message": "it rises"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_events_are_on_disk_at_once(run: RunDir) -> None:
    events = EventFile(run)
    for number in (1, 2):
        events.log(step(number))
        assert [e["step"] for e in read_lines(run.events)] == list(range(1, number + 1))
    events.close()


def test_a_resumed_run_drops_the_lines_of_steps_it_does_again(run: RunDir) -> None:
    events = EventFile(run)
    for event in (step(1), validation(2), step(2), step(3), WARNING, validation(4)):
        events.log(event)
    events.close()
    events = EventFile(run, after=2)
    events.log(step(3, 9.0))
    events.close()
    kept = list(read_lines(run.events))
    assert [(e["kind"], e["step"]) for e in kept] == [
        ("step", 1),
        ("validation", 2),
        ("step", 2),
        ("step", 3),
    ]
    assert kept[-1]["loss"] == 9.0


def test_half_a_line_of_a_killed_run_stops_nothing(run: RunDir) -> None:
    run.events.write_text(json.dumps(step(1)) + "\n" + '{"kind": "step", "st', encoding="utf-8")
    events = EventFile(run, after=5)
    events.log(step(2))
    events.close()
    assert [e["step"] for e in read_lines(run.events)] == [1, 2]


def test_what_is_not_a_number_is_written_as_it_is(run: RunDir) -> None:
    events = EventFile(run)
    events.log(step(1, math.nan))
    events.close()
    assert math.isnan(next(read_lines(run.events))["loss"])


def test_tensorboard_holds_every_number(run: RunDir) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(run)
    for event in (step(1), step(2, 1.0), validation(2), WARNING):
        board.log(event)
    board.close()
    found = EventAccumulator(str(run.tensorboard))
    found.Reload()
    names = set(found.Tags()["scalars"])
    assert {"step/loss", "step/nll", "step/learning_rate", "step/grad_norm"} <= names
    assert {"validation/loss", "validation/nll"} <= names
    assert not any(name.startswith("warning") for name in names)
    assert [(e.step, e.value) for e in found.Scalars("step/loss")] == [(1, 1.5), (2, 1.0)]


def test_a_tracker_that_is_not_installed_is_named(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else plain(name)
    )
    with pytest.raises(RecipeError, match=r"training\.trackers: wandb is not installed") as caught:
        open_trackers(run, ("wandb",), 10, 0, True)
    assert caught.value.faults[0].cure == "pip install wandb"
    assert not run.events.exists()


@pytest.mark.parametrize("installed", [True, False])
def test_auto_is_tensorboard_where_it_is_installed(
    run: RunDir, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    made = open_trackers(run, "auto", 10, 0, True)
    kinds = [type(tracker) for tracker in made]
    for tracker in made:
        tracker.close()
    assert kinds == ([EventFile, TensorBoard] if installed else [EventFile])


def test_nothing_is_printed_when_quiet_and_lines_where_there_is_no_terminal(run: RunDir) -> None:
    for quiet, expected in ((True, [EventFile]), (False, [EventFile, Lines])):
        made = open_trackers(run, (), 10, 0, quiet)
        assert [type(t) for t in made] == expected
        for tracker in made:
            tracker.close()


def test_lines_say_what_happened_and_how_long_it_will_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines(10)
    for event in (step(1), step(2), validation(2), WARNING, step(10)):
        lines.log(event)
    lines.close()
    said = capsys.readouterr().out.splitlines()
    assert "loss 1.5000" in said[0]
    assert "5,000 tok/s" in said[0]
    assert "1.0 GB" in said[0]
    assert said[1].endswith("left")
    assert said[2] == say(validation(2))
    assert "validation loss 1.2500" in said[2]
    assert said[3] == "warning: it rises"
    assert not said[4].endswith("left")


def test_the_bar_shows_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(10)
    bar.log(step(4))
    bar.log(validation(4))
    bar.close()
    assert "validation loss 1.2500" in capsys.readouterr().out
