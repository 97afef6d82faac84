"""Law 4: killed and resumed is never killed, byte for byte; and what is damaged is said to be."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from builders import gap

from engine.small import fingerprint, fitted, loss_lines, small_loop, small_recipe, weights
from luthier.core.errors import DiskFullError, RecipeError, TrainingError
from luthier.core.rundir import RunDir
from luthier.engine import checkpoint
from luthier.engine.checkpoint import State
from luthier.engine.loop import Loop

TESTS = Path(__file__).resolve().parent.parent
LORA = {"kind": "lora", "rank": 4, "dropout": 0.2}


def at_step(step: int, action: Callable[[], Any], patch: pytest.MonkeyPatch) -> None:
    """Runs an action at the end of a step, while the run goes on."""
    plain = Loop._step

    def acting(self: Loop) -> None:
        plain(self)
        if self.state.step == step:
            action()

    patch.setattr(Loop, "_step", acting)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# Law 4: dropout everywhere, packing, several micro-batches a step, three steps an epoch, a log
# line every four steps and a validation every five.


@pytest.mark.parametrize("method", ["full", LORA], ids=["full", "lora"])
@pytest.mark.parametrize("stops", [(1,), (4, 7), (5,)], ids=str)
def test_law_4_stopped_and_resumed_is_never_stopped(
    method: Any, stops: tuple[int, ...], tmp_path: Path
) -> None:
    whole, again = (small_recipe(tmp_path / name, method) for name in ("whole", "again"))
    assert fitted(whole).status == "finished"
    for number, step in enumerate(stops):
        with pytest.MonkeyPatch.context() as patch:
            at_step(step, terminate, patch)
            assert fitted(again, resumed=number > 0).status == "stopped"
        torch.manual_seed(number)  # whatever was drawn in between
        assert RunDir(tmp_path / "again").saved()[-1][0] == step
    assert fitted(again, resumed=True).status == "finished"
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "whole")
    assert loss_lines(tmp_path / "again") == loss_lines(tmp_path / "whole")


def test_law_4_killed_in_the_middle_of_a_step(tmp_path: Path) -> None:
    """SIGKILL to a real process after step 7: the checkpoint of step 5 has to do.

    That one is written beside training, so it is waited for; ``killing.py`` kills while it is.
    """
    script = (
        "import os, signal, sys, time, pytest\n"
        "from pathlib import Path\n"
        "from engine.small import fitted, small_recipe\n"
        "from engine.test_checkpoint import LORA, at_step\n"
        "from luthier.core.rundir import RunDir\n"
        "def kill():\n"
        "    while not RunDir(Path(sys.argv[1])).saved():\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "with pytest.MonkeyPatch.context() as patch:\n"
        "    at_step(7, kill, patch)\n"
        "    fitted(small_recipe(Path(sys.argv[1]), LORA))\n"
    )
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "again")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert [step for step, _ in RunDir(tmp_path / "again").saved()] == [5]
    assert fitted(small_recipe(tmp_path / "again", LORA), resumed=True).status == "finished"
    assert fitted(small_recipe(tmp_path / "whole", LORA)).status == "finished"
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "whole")
    assert loss_lines(tmp_path / "again") == loss_lines(tmp_path / "whole")


def test_law_4_with_sgd_and_gpt2(tmp_path: Path) -> None:
    def loop(folder: str, **changes: Any) -> Loop:
        model = builders.tiny("gpt2", resid_pdrop=0.2, attn_pdrop=0.2)
        return small_loop(
            tmp_path / folder, model=model, optimizer="sgd", max_steps=6, budget=30, **changes
        )

    whole, first, second = loop("whole"), loop("again", save_every=2), loop("again")
    whole.train()
    with pytest.MonkeyPatch.context() as patch:
        at_step(5, lambda: 1 / 0, patch)
        with pytest.raises(ZeroDivisionError):
            first.train()
    second.resume(second.run.checkpoint(4))
    second.train()
    assert gap(weights(whole), weights(second)) == 0


def test_a_resumed_run_keeps_what_was_chosen_for_it(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, token_budget=120)
    with pytest.MonkeyPatch.context() as patch:
        at_step(3, terminate, patch)
        fitted(recipe)
    chosen = checkpoint.read_state(RunDir(tmp_path).checkpoint(3)).choices
    assert chosen["token_budget"] == 120
    assert chosen["precision"] == "float32"
    # Another budget in the recipe cuts other micro-batches: the run's own counts.
    recipe["training"]["token_budget"] = 4000
    fitted(recipe, resumed=True)
    assert checkpoint.read_state(RunDir(tmp_path).checkpoint(12)).choices == chosen


def test_a_run_whose_data_changed_is_not_continued(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        at_step(3, terminate, patch)
        fitted(recipe)
    recipe["data"]["train"] = recipe["data"]["train"][:-1]
    with pytest.raises(RecipeError, match="training data"):
        fitted(recipe, resumed=True)


# One checkpoint


def saved(folder: Path, **changes: Any) -> tuple[Loop, Path]:
    loop = small_loop(folder, max_steps=2, keep=1, **changes)
    loop.train()
    return loop, loop.run.checkpoint(2)


def save(loop: Loop) -> None:
    """Saves, and waits for it."""
    loop._save()
    loop._writer.wait()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_everything_comes_back(optimizer: str, tmp_path: Path) -> None:
    loop, folder = saved(tmp_path, optimizer=optimizer, held=builders.examples([8]))
    random = torch.get_rng_state()
    fresh = small_loop(tmp_path, max_steps=2, optimizer=optimizer)
    torch.manual_seed(99)
    fresh.resume(folder)
    assert gap(weights(fresh), weights(loop)) == 0
    assert fresh.state == loop.state
    assert fresh.state.best is not None
    assert torch.equal(torch.get_rng_state(), random)
    for name, parameter in loop.parameters.items():
        old, new = loop.optimizer.state[parameter], fresh.optimizer.state[fresh.parameters[name]]
        assert set(old) == set(new) != set()
        for entry, value in old.items():
            assert torch.equal(value, new[entry])
            assert value.dtype == new[entry].dtype


def test_the_manifest_names_every_file_with_its_sha256(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    sums = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = {p.name for p in folder.iterdir()} - {"manifest.json"}
    assert set(sums) == files
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


@pytest.mark.parametrize(
    "name",
    ["weights.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"],
)
def test_one_flipped_bit_is_found(name: str, tmp_path: Path) -> None:
    loop, folder = saved(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    before = weights(loop)
    with pytest.raises(TrainingError, match=f"damaged: {name} is not what was written") as caught:
        loop.resume(folder)
    assert gap(weights(loop), before) == 0
    assert caught.value.faults[0].cure


def test_a_file_or_a_manifest_that_is_gone_is_found(tmp_path: Path) -> None:
    loop, folder = saved(tmp_path)
    (folder / "random.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"random\.safetensors is not"):
        loop.resume(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(TrainingError, match=r"manifest\.json cannot be read"):
        loop.resume(folder)
    (folder / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"state\.json cannot be read"):
        checkpoint.read_state(folder)


@pytest.mark.parametrize("other", ["gpt2", "wider", "lora"])
def test_a_checkpoint_of_another_model_is_refused(other: str, tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    loops: dict[str, Callable[[], Loop]] = {
        "gpt2": lambda: small_loop(tmp_path, model=builders.tiny("gpt2")),
        "wider": lambda: small_loop(tmp_path, model=builders.tiny("llama", intermediate_size=64)),
        "lora": lambda: small_loop(tmp_path, method="lora"),
    }
    with pytest.raises(TrainingError, match="of another model"):
        loops[other]().resume(folder)


def test_a_checkpoint_replaces_that_of_the_same_step(tmp_path: Path) -> None:
    loop, folder = saved(tmp_path)
    (folder / "weights.safetensors").write_bytes(b"damaged")
    save(loop)
    checkpoint.verify(folder)
    assert [p.name for p in loop.run.checkpoints.iterdir()] == ["step-000002"]


def test_a_full_disk_is_said_and_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    loop, folder = saved(tmp_path)
    loop.state.step = 3
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DiskFullError, match="step-000003' cannot be written") as caught:
            save(loop)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"--resume {tmp_path}" in caught.value.faults[0].cure
    assert [p.name for p in loop.run.checkpoints.iterdir()] == ["step-000002"]
    checkpoint.verify(folder)


def test_room_is_looked_for_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, _ = saved(tmp_path)
    loop.state.step = 3
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(checkpoint, "save_file", lambda *_: pytest.fail("something was written"))
    with pytest.raises(DiskFullError, match="1,000 bytes are free"):
        save(loop)
    assert [p.name for p in loop.run.checkpoints.iterdir()] == ["step-000002"]


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    _, folder = saved(tmp_path, model=builders.tiny("llama", tie_word_embeddings=True))
    names = set(load_file(folder / "weights.safetensors"))
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_a_state_survives_json_exactly() -> None:
    state = State(step=3, seconds=0.1 + 0.2, best=(1 / 3, 2), recent={"losses": [1e-300, 0.1]})
    again = State(**json.loads(json.dumps(vars(state))))
    assert again.seconds == state.seconds
    assert again.recent == state.recent


def test_retention_never_deletes_the_newest_or_the_best(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in (1, 2, 3, 4, 10):
        run.checkpoint(step).mkdir(parents=True)
    (run.checkpoints / ".step-000005.tmp").mkdir()
    checkpoint.retain(run, 2, best_step=1)
    assert [step for step, _ in run.saved()] == [1, 4, 10]
    checkpoint.retain(run, 1, best_step=None)
    assert [step for step, _ in run.saved()] == [10]
