"""Runs that were stopped, go on, go further, or must not be touched: from the outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine.small import fingerprint
from engine.test_checkpoint import at_step, terminate
from safetensors.torch import load_file
from tiny_runs import sums, tiny_recipe

import luthier
from luthier import cli
from luthier.core.errors import RecipeError, TrainingError
from luthier.core.lock import hold
from luthier.core.rundir import RunDir, read_lines
from luthier.engine.watch import Stop, StopNowError, signals

STEPS = 4


def recipe(folder: Path, output: str = "run", **training: Any) -> dict[str, Any]:
    rows = folder / "rows.jsonl"
    if not rows.exists():
        rows.write_text("".join(json.dumps(row) + "\n" for row in sums()))
    values = tiny_recipe(folder / output, data={"train": str(rows)})
    values["training"] |= {"max_steps": STEPS, "evaluate_every": 2, "device": "cpu", **training}
    values["evaluation"] |= {"samples": 1, "generate_rows": 1, "max_new_tokens": 2}
    return values


def written(folder: Path, **training: Any) -> str:
    """The recipe as a file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(folder, **training)))
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run ``whole`` and its rows."""
    folder = tmp_path_factory.mktemp("resume")
    assert luthier.train(recipe(folder, "whole"), quiet=True).finished
    return folder


@pytest.fixture
def finished(home: Path, tmp_path: Path) -> RunDir:
    """A finished run to be spoilt."""
    shutil.copytree(home / "whole", tmp_path / "run")
    return RunDir(tmp_path / "run")


# Signals


def killing_in(patch: pytest.MonkeyPatch, name: str, number: int = signal.SIGTERM) -> None:
    """A signal comes as a part of ``luthier.run`` begins."""
    plain: Callable[..., Any] = getattr(luthier.run, name)

    def acting(*args: Any, **settings: Any) -> Any:
        os.kill(os.getpid(), number)
        return plain(*args, **settings)

    patch.setattr(f"luthier.run.{name}", acting)


@pytest.mark.parametrize("when", ["first step", "last step", "save_result", "judge", "assemble"])
def test_a_signal_is_never_swallowed_and_the_run_goes_on_as_if_it_had_not_come(
    when: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        if when.endswith("step"):
            at_step(1 if when == "first step" else STEPS, terminate, patch)
        else:
            killing_in(patch, when)
        assert cli.run(["train", written(tmp_path)]) == 75
    assert signal.getsignal(signal.SIGTERM) == before
    run = RunDir(tmp_path / "run")
    assert not run.finished
    out = capsys.readouterr().out
    if when == "assemble":  # nothing was written, and the same command begins again
        assert not run.path.exists()
        assert "stopped before anything was written" in out
        assert cli.run(["train", str(tmp_path / "recipe.yaml")]) == 0
    else:
        assert f"luthier train --resume {run.path}" in out
        assert [step for step, _ in run.saved()][-1] == (1 if when == "first step" else STEPS)
        events = [e for e in read_lines(run.events) if e["kind"] == "step"]
        assert cli.run(["train", "--resume", str(run.path)]) == 0
        if when != "first step":  # straight to what was left: no step was taken again
            assert [e for e in read_lines(run.events) if e["kind"] == "step"] == events
    assert luthier.Run(run).finished
    assert fingerprint(run.path) == fingerprint(home / "whole")
    assert not run.lock.exists()


def test_a_signal_in_a_stages_last_step_lets_no_other_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = recipe(tmp_path)
    values["stages"] = [{}, {"method": {"kind": "lora", "rank": 2}}]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    with monkeypatch.context() as patch:
        at_step(STEPS, terminate, patch)
        assert cli.run(["train", str(path), "-q"]) == 75
    first, second = RunDir(tmp_path / "run").stages
    assert first.saved()
    assert not first.finished
    assert not second.path.exists()
    with monkeypatch.context() as patch:  # and in the measuring of the first
        killing_in(patch, "judge")
        assert cli.run(["train", "--resume", str(tmp_path / "run"), "-q"]) == 75
    assert not second.path.exists()
    assert cli.run(["train", "--resume", str(tmp_path / "run"), "-q"]) == 0
    assert RunDir(tmp_path / "run").finished


def test_one_signal_waits_where_something_ends_and_a_second_one_ends_all() -> None:
    with signals() as stop:
        with stop.patiently():
            terminate()
            assert stop.asked
            terminate()  # harmless
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        terminate()
        assert stop.signal == signal.SIGTERM
    with signals() as stop, stop.patiently():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_of_training_a_signal_acts_where_it_comes() -> None:
    with signals() as stop, pytest.raises(StopNowError):
        terminate()
    assert stop.signal == signal.SIGTERM
    with signals() as outer, signals() as inner:
        assert inner is outer
    assert Stop().patient


# Further than the recipe first said


def test_a_finished_run_is_left_alone(
    finished: RunDir, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    written = {p: p.stat().st_mtime_ns for p in finished.path.rglob("*")}
    assert luthier.train(resume=finished.path).finished
    assert "is finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.path.rglob("*")} == written


def test_a_finished_run_trains_on_and_is_measured_anew(
    finished: RunDir, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed on the way it is unfinished, and its own recipe says how far it goes."""
    words = [f"training.max_steps={STEPS + 2}"]
    old = json.loads(finished.evaluation.read_text())
    with monkeypatch.context() as patch:
        at_step(STEPS + 1, lambda: 1 / 0, patch)
        with pytest.raises(ZeroDivisionError):
            luthier.train(resume=finished.path, overrides=words, quiet=True)
    assert not finished.finished
    assert yaml.safe_load(finished.recipe.read_text())["training"]["max_steps"] == STEPS + 2
    run = luthier.train(resume=finished.path, quiet=True)
    assert run.finished
    assert finished.saved()[-1][0] == STEPS + 2
    assert fingerprint(finished.path) != fingerprint(home / "whole")
    new = json.loads(finished.evaluation.read_text())
    assert new["metrics"]["perplexity"]["after"] != old["metrics"]["perplexity"]["after"]
    assert new["metrics"]["perplexity"]["before"] == old["metrics"]["perplexity"]["before"]
    assert [e["step"] for e in run.events if e["kind"] == "validation"] == [2, 4, 6]


def test_more_epochs(finished: RunDir) -> None:
    run = luthier.train(
        resume=finished.path,
        overrides=["training.max_steps=null", "training.epochs=2"],
        quiet=True,
    )
    assert run.finished
    assert finished.saved()[-1][0] == 8  # 58 rows in steps of 16, twice


def test_fewer_steps_than_were_done_are_refused(finished: RunDir) -> None:
    with pytest.raises(RecipeError, match="is at step 4, and the recipe now ends at 3") as caught:
        luthier.train(resume=finished.path, overrides=["training.max_steps=3"], quiet=True)
    assert caught.value.faults[0].code == "beyond"
    assert finished.finished


# What changed since


def test_a_change_is_refused_by_name_unless_inexact_is_asked_for(
    finished: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["training.batch_size=8", "training.optimizer=sgd", "training.max_steps=6"]
    with pytest.raises(RecipeError, match=r"batch_size, training\.optimizer(.|\n)*--allow-inexact"):
        luthier.train(resume=finished.path, overrides=words, quiet=True)
    assert finished.finished
    assert cli.run(["train", "--resume", str(finished.path), "--allow-inexact", *words]) == 0
    out = capsys.readouterr().out
    assert (
        "inexact from here on: changed since the run began: training.batch_size, training.optimizer"
        in out
    )
    assert finished.finished
    # One optimizer takes nothing over from the other.
    kept = load_file(finished.checkpoint(6) / "optimizer.safetensors")
    assert {name.rpartition("/")[2] for name in kept} == {"momentum_buffer"}
    # From now on this is what the run is.
    words = ["training.max_steps=7"]
    assert luthier.train(resume=finished.path, overrides=words, quiet=True).finished
    words = ["training.max_steps=8", "training.optimizer=adamw"]
    assert luthier.train(
        resume=finished.path, overrides=words, allow_inexact=True, quiet=True
    ).finished


def test_a_smaller_token_budget_is_taken_a_larger_one_is_not(
    finished: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, newest) = finished.saved()[-1]
    own = json.loads((newest / "state.json").read_text())["state"]["choices"]["token_budget"]
    for steps, asked, told in ((5, own // 2, own // 2), (6, own * 2, own // 2)):
        words = [f"training.token_budget={asked}", f"training.max_steps={steps}"]
        luthier.train(resume=finished.path, overrides=words)
        assert f"{told:,} tokens at most in a micro-batch" in capsys.readouterr().out


def test_inexact_means_nothing_for_a_new_run(tmp_path: Path) -> None:
    assert cli.run(["train", written(tmp_path), "--allow-inexact"]) == 2


def test_a_moved_run_goes_on(finished: RunDir, tmp_path: Path) -> None:
    moved = finished.path.rename(tmp_path / "elsewhere")
    run = luthier.train(resume=moved, overrides=["training.max_steps=5"], quiet=True)
    assert run.finished
    assert run.path == moved


def test_a_model_may_move_but_not_change(home: Path, tmp_path: Path) -> None:
    for name in ("base", "other"):
        shutil.copytree(home / "whole" / "model", tmp_path / name)
    values = recipe(tmp_path)
    run = luthier.train({**values, "model": str(tmp_path / "base")}, quiet=True)
    words = ["training.max_steps=5"]
    (tmp_path / "base").rename(tmp_path / "moved")
    moved = [*words, f"model={tmp_path / 'moved'}"]
    assert luthier.train(resume=run.path, overrides=moved, quiet=True).finished
    weights = tmp_path / "other" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    words = ["training.max_steps=6", f"model={tmp_path / 'other'}"]
    with pytest.raises(RecipeError, match="changed since it began: the model's files"):
        luthier.train(resume=run.path, overrides=words, quiet=True)


def test_a_checkpoint_of_a_version_that_knew_no_files_goes_by_the_name() -> None:
    from luthier.fit import _changed

    new = {"the model's files": "a", "model": "b", "tokens": "c"}
    assert _changed({"model": "b", "tokens": "c"}, new) == []
    assert _changed({"model": "x", "tokens": "c"}, new) == ["model"]


def test_a_checkpoint_that_is_damaged_is_said(
    finished: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, newest) = finished.saved()[-1]
    (newest / "weights.safetensors").write_bytes(b"")
    luthier.train(resume=finished.path, overrides=["training.max_steps=5"])
    out = capsys.readouterr().out
    assert "weights.safetensors is not what was written; set aside as" in out
    assert "continuing after step 2" in out


# Two at once


def test_a_second_process_is_refused_by_the_firsts_number(tmp_path: Path) -> None:
    """The kernel's lock: another process, or another call of this one; gone with its holder."""
    run = RunDir(tmp_path)
    code = (
        "import sys; from luthier.core.lock import hold; from luthier.core.rundir import RunDir\n"
    )
    code += "from pathlib import Path\n"
    code += "with hold(RunDir(Path(sys.argv[1]))): print('mine', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        match = f"written by process {holder.pid}"
        with pytest.raises(RecipeError, match=match) as caught, hold(run):
            pytest.fail("two hold it")
        assert caught.value.faults[0].code == "busy"
        holder.kill()
    assert run.lock.is_file()
    with hold(run), pytest.raises(RecipeError, match=f"process {os.getpid()}"), hold(run):
        pytest.fail("two hold it")
    assert not run.lock.exists()


def test_a_run_that_is_running_is_neither_begun_nor_resumed_nor_measured(finished: RunDir) -> None:
    values = recipe(finished.path.parent)
    with hold(finished):
        for refused in (
            lambda: luthier.train(values, quiet=True),
            lambda: luthier.train(
                resume=finished.path, overrides=["training.max_steps=9"], quiet=True
            ),
            lambda: luthier.evaluate(finished.path, quiet=True),
        ):
            with pytest.raises(RecipeError, match="is being written by process"):
                refused()
        assert finished.lock.exists()
    assert finished.finished


def test_a_run_killed_before_it_was_one_is_begun_again(tmp_path: Path) -> None:
    values = recipe(tmp_path)
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.lock.write_text("1234\n")
    run.environment.write_text("{}")
    (run.path / ".environment.json.1234").write_text("{")
    assert luthier.train(values, quiet=True).finished


def test_a_run_in_stages_killed_before_it_was_one_is_begun_again(tmp_path: Path) -> None:
    values = recipe(tmp_path)
    values["stages"] = [{}]
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.environment.write_text("{}")
    run.stage_list.write_text('{"stages": ["1-sft"]}')
    (run.path / ".recipe.yaml.1234").write_text("ver")
    assert luthier.train(values, quiet=True).finished


def test_a_run_without_a_sound_checkpoint_is_an_error(finished: RunDir) -> None:
    for _, folder in finished.saved():
        (folder / "manifest.json").unlink()
    with pytest.raises(TrainingError, match="no sound checkpoint left"):
        luthier.train(resume=finished.path, overrides=["training.max_steps=5"], quiet=True)


def test_a_run_that_was_refused_leaves_no_folder(tmp_path: Path) -> None:
    """Its rows are looked at once its folder is taken."""
    wrong = {**tiny_recipe(tmp_path / "run"), "data": {"train": [{"prompt": "a"}]}}
    with pytest.raises(luthier.UserError):
        luthier.train(wrong, quiet=True)
    assert not (tmp_path / "run").exists()
