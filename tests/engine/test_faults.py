"""Damaged checkpoints, leftovers of killed saves, and checkpoints written beside training."""

from __future__ import annotations

import os
import resource
import shutil
import threading
from pathlib import Path
from typing import Any

import builders
import pytest
from builders import gap

from engine.small import fingerprint, fitted, small_loop, small_recipe, weights
from engine.test_checkpoint import LORA, at_step, saved, terminate
from luthier.core.errors import DiskFullError, TrainingError
from luthier.core.rundir import RunDir
from luthier.engine import checkpoint, recover
from luthier.engine.watch import Stop

FILES = (
    "weights.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "state.json",
    "manifest.json",
)


def silent(_line: str) -> None: ...


def flip(path: Path, share: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 4
    path.write_bytes(content)


# Damage


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped at step 7, with the checkpoints of steps 5 and 7; and a whole one beside it."""
    home = tmp_path_factory.mktemp("faults")
    fitted(small_recipe(home / "whole", LORA))
    with pytest.MonkeyPatch.context() as patch:
        at_step(7, terminate, patch)
        assert fitted(small_recipe(home / "run", LORA)).status == "stopped"
    assert [step for step, _ in RunDir(home / "run").saved()] == [5, 7]
    return home


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_any_file_costs_two_steps_and_changes_nothing(
    name: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped / "run", folder)
    run = RunDir(folder)
    flip(run.checkpoint(7) / name, 0.5)
    assert fitted(small_recipe(folder, LORA), resumed=True).status == "finished"
    assert fingerprint(folder) == fingerprint(stopped / "whole")
    assert [p.name for p in run.set_aside()] == ["damaged-step-000007"]
    assert (run.set_aside()[0] / name).is_file()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8, 0.999])
@pytest.mark.parametrize("name", FILES)
def test_wherever_the_bit_lies_it_is_found(name: str, share: float, tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    flip(folder / name, share)
    with pytest.raises(TrainingError, match="is damaged"):
        checkpoint.verify(folder)


def test_a_disk_that_no_longer_reads_is_damage_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, folder = saved(tmp_path)

    def unreadable(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "_sha256", unreadable)
    with pytest.raises(TrainingError, match="no sound checkpoint left"):
        recover.newest_sound(loop.run, silent)
    assert not folder.exists()
    assert loop.run.set_aside()


def test_what_is_set_aside_is_said_by_name_and_numbered(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, max_steps=3, save_every=1, keep=3)
    loop.train()
    run = loop.run
    said: list[str] = []
    (run.checkpoints / "damaged-step-000003").mkdir()
    (run.checkpoint(3) / "state.json").unlink()
    flip(run.checkpoint(2) / "weights.safetensors", 0.9)
    assert recover.newest_sound(run, said.append) == run.checkpoint(1)
    assert [p.name for p in run.set_aside()] == [
        "damaged-step-000002",
        "damaged-step-000003",
        "damaged-step-000003-2",
    ]
    assert "state.json is not what was written" in said[0]
    assert said[0].endswith(f"set aside as '{run.checkpoints / 'damaged-step-000003-2'}'")
    assert "weights.safetensors is not what was written" in said[1]


def test_where_none_is_sound_the_run_does_not_begin_anew_by_itself(tmp_path: Path) -> None:
    loop, folder = saved(tmp_path)
    (folder / "manifest.json").write_text("[]")
    for _ in range(2):  # the second time nothing but the damaged one is left
        with pytest.raises(TrainingError, match="no sound checkpoint left") as caught:
            recover.newest_sound(loop.run, silent)
        assert "damaged-step-000002" in str(caught.value)


def test_a_run_stopped_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    assert recover.newest_sound(RunDir(tmp_path), silent) is None
    assert fitted(small_recipe(tmp_path / "run"), resumed=True).status == "finished"
    assert fitted(small_recipe(tmp_path / "whole")).status == "finished"
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


# What a killed save leaves


def test_leftovers_are_cleared_and_a_checkpoint_between_two_names_is_put_back(
    tmp_path: Path,
) -> None:
    _, folder = saved(tmp_path)
    run = RunDir(tmp_path)
    folder.rename(folder.with_name(".step-000002.old"))
    for name in (".step-000002.tmp", ".step-000001.gone", ".step-000009.tmp"):
        (run.checkpoints / name).mkdir()
    (tmp_path / ".scores.jsonl.1234").write_text("half")
    (tmp_path / ".gitignore").write_text("mine")
    assert run.saved() == []
    assert recover.newest_sound(run, silent) == folder
    assert [p.name for p in run.checkpoints.iterdir()] == ["step-000002"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".gitignore", "checkpoints"]


def test_an_older_one_beside_the_new_is_taken_away(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    shutil.copytree(folder, folder.with_name(".step-000002.old"))
    (folder.with_name(".step-000002.old") / "weights.safetensors").write_bytes(b"older")
    assert recover.newest_sound(RunDir(tmp_path), silent) == folder
    assert [p.name for p in folder.parent.iterdir()] == ["step-000002"]


def test_a_checkpoint_half_deleted_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    for step in (1, 2):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "state.json").touch()

    def killed(path: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.retain(run, 1, None)
    assert [step for step, _ in run.saved()] == [2]


@pytest.mark.parametrize("relative", [True, False])
def test_retention_keeps_the_best_however_the_folder_is_named(
    relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("run") if relative else tmp_path / "run"
    loop = small_loop(folder, max_steps=5, save_every=1, keep=1, held=builders.examples([8]))
    loop.state.best, loop._validate_every = (-1.0, 2), 100
    loop.train()
    assert [step for step, _ in RunDir(tmp_path / "run").saved()] == [2, 5]


# Beside training


def test_a_checkpoint_is_of_its_own_step_though_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write waits until the next step is done; what it writes is the step before."""
    after, plain = threading.Event(), checkpoint.write

    def late(*args: Any) -> Any:
        assert after.wait(60)
        return plain(*args)

    loop = small_loop(tmp_path, save_every=100)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", late)
        loop._step()
        first, moments = (
            weights(loop),
            {
                name: loop.optimizer.state[p]["exp_avg"].clone()
                for name, p in loop.parameters.items()
            },
        )
        loop._save()
        loop._step()
        assert loop.run.saved() == []
        after.set()
        loop._writer.wait()
    assert gap(first, weights(loop)) > 0
    fresh = small_loop(tmp_path)
    fresh.resume(loop.run.checkpoint(1))
    assert gap(weights(fresh), first) == 0
    kept = {n: fresh.optimizer.state[p]["exp_avg"] for n, p in fresh.parameters.items()}
    assert gap(kept, moments) == 0
    assert fresh.state.step == 1


def test_every_way_out_waits_for_the_checkpoint_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = checkpoint.write

    def slow(*args: Any) -> Any:
        threading.Event().wait(0.3)
        return plain(*args)

    monkeypatch.setattr(checkpoint, "write", slow)
    for number, end in enumerate(("finished", "stopped", "raised")):
        stop = Stop(15) if end == "stopped" else Stop()
        loop = small_loop(tmp_path / str(number), max_steps=2, save_every=1, stop=stop)
        if end == "raised":
            with monkeypatch.context() as patch:
                at_step(2, lambda: 1 / 0, patch)
                with pytest.raises(ZeroDivisionError):
                    loop.train()
        else:
            assert loop.train() == end
        assert loop.run.saved()
        checkpoint.verify(loop.run.saved()[-1][1])
        assert not [t for t in threading.enumerate() if t.name == "luthier-checkpoint"]


@pytest.mark.parametrize(("save", "ended", "steps"), [(1, "stopped", 2), (4, "finished", 4)])
def test_a_signal_during_a_save_is_not_lost(
    save: int, ended: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last step's it is left to whoever goes on."""
    stop = Stop()
    loop = small_loop(tmp_path, max_steps=4, save_every=1, stop=stop)
    plain = loop._writer.save

    def interrupted(state: Any, *rest: Any) -> None:
        if state.step == save:
            stop.signal = 15
        plain(state, *rest)

    monkeypatch.setattr(loop._writer, "save", interrupted)
    assert loop.train() == ended
    assert loop.run.saved()[-1][0] == steps
    assert stop.asked


def test_what_fails_beside_is_raised_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(run: Any, snapshot: Any) -> Any:
        raise TrainingError(f"no room for step {snapshot.step}")

    monkeypatch.setattr(checkpoint, "write", failing)
    loop = small_loop(tmp_path, max_steps=50, save_every=2)
    plain = loop._writer._beside

    def waited(*args: Any) -> bool:
        begun = plain(*args)
        assert loop._writer._thread is not None
        loop._writer._thread.join()
        return begun

    monkeypatch.setattr(loop._writer, "_beside", waited)
    with pytest.raises(TrainingError, match="no room for step 2"):
        loop.train()
    assert loop.state.step == 2


def test_an_error_of_the_loop_is_not_hidden_by_one_of_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(run: Any, snapshot: Any) -> Any:
        raise TrainingError("no room")

    monkeypatch.setattr(checkpoint, "write", failing)
    loop = small_loop(tmp_path, max_steps=3, save_every=1)

    def both() -> Any:
        loop._step()
        loop._save()
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "_train", both)
    with pytest.raises(ZeroDivisionError) as caught:
        loop.train()
    assert "no room" in "".join(caught.value.__notes__)


def test_a_disk_that_fills_while_training_ends_the_run_and_leaves_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    """The limit is the kernel's own; torch and safetensors meet it in their own words."""
    loop, folder = saved(tmp_path)
    again = small_loop(tmp_path, max_steps=9, save_every=2)
    again.resume(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DiskFullError) as caught:
            again.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (fault,) = caught.value.faults
    assert caught.value.exit_code == 74
    assert fault.code == "disk-full"
    needed = sum(t.nbytes for t in weights(loop).values()) * 3
    assert f"it needs {needed:,} bytes" not in fault.message  # steps and random states as well
    assert "it needs " in fault.message
    assert "bytes are free" in fault.message
    assert [p.name for p in again.run.checkpoints.iterdir()] == ["step-000002"]
    checkpoint.verify(folder)
    assert os.listdir(folder)
