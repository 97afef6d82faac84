"""Memory that runs out: half the token budget, the same step again, the same loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from builders import gap
from torch import Tensor

from engine.small import LENGTHS, Kept, small_loop, weights
from luthier.core.errors import TrainingError
from luthier.core.records import Batch
from luthier.engine import checkpoint, memory
from luthier.engine.backend import Backend
from luthier.objectives import language_modeling

TESTS = Path(__file__).resolve().parent.parent
LONGEST = max(LENGTHS)
CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.90 GiB total)"),
    RuntimeError(CPU),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
]


class Hungry(language_modeling.Objective):
    """Runs out of memory for batches above a size, in calls from one on."""

    def __init__(self, most: int, error: Exception | None = None, first: int = 0) -> None:
        super().__init__(language_modeling.Config())
        self.most, self.error, self.first = most, error or ERRORS[0], first
        self.seen: list[int] = []

    def loss(self, models: Any, batch: Batch) -> dict[str, Tensor]:
        self.seen.append(batch.tokens.numel())
        if batch.tokens.numel() > self.most and len(self.seen) > self.first:
            torch.rand(7)  # moves the generator, as dropout would have
            raise self.error
        return super().loss(models, batch)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__} {str(e)[:18]}")
def test_every_allocators_words_are_known(error: Exception) -> None:
    assert memory.is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("CUDA out of memory")],
)
def test_nothing_else_is_taken_for_it(error: Exception, tmp_path: Path) -> None:
    assert not memory.is_out_of_memory(error)
    loop = small_loop(tmp_path, objective=Hungry(0, error))
    with pytest.raises(type(error)):
        loop._step()


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__} {str(e)[:18]}")
def test_the_same_step_is_taken_again_with_half_the_budget(
    error: Exception, tmp_path: Path
) -> None:
    """The gradient of a first micro-batch that fitted must not count twice."""
    kept, whole = Kept(), Kept()
    train = builders.examples([20, 20, 10, 10])
    hungry = Hungry(29, error, first=1)  # the second micro-batch of the first step
    settings: dict[str, Any] = {"train": train, "max_steps": 3, "save_every": 1}
    loop = small_loop(tmp_path / "hungry", objective=hungry, budget=40, trackers=[kept], **settings)
    assert loop.train() == "finished"
    assert hungry.seen[:3] == [30, 30, 20]
    assert [loop.budget, loop.state.step, loop.state.skipped] == [20, 3, 0]
    plain = small_loop(tmp_path / "plain", budget=40, trackers=[whole], **settings)
    plain.train()
    for ours, theirs in zip(kept.of("step"), whole.of("step"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
        assert ours["tokens"] == theirs["tokens"]
    assert gap(weights(loop), weights(plain)) < 1e-5
    (warning,) = kept.of("warning")
    assert "40 tokens in a micro-batch become 20" in warning["message"]
    assert (warning["step"], warning["token_budget"]) == (0, 20)
    saved = checkpoint.read_state(loop.run.checkpoint(2))
    assert saved.choices["token_budget"] == 20


def test_dropout_is_drawn_again_from_where_the_step_began(tmp_path: Path) -> None:
    """Of one long example, whose cut stays the same: a failed attempt leaves no trace at all."""
    made = []
    for name, most in (("hungry", 25), ("plain", 99)):
        model = builders.tiny("gpt2", resid_pdrop=0.3)
        hungry = Hungry(most)
        loop = small_loop(
            tmp_path / name, model=model, objective=hungry, budget=40 if most == 25 else 20,
            train=builders.examples([20, 20]), batch_size=2, max_steps=2,
        )  # fmt: skip
        loop.train()
        made.append(weights(loop))
    assert gap(*made) == 0


def test_validation_too_goes_on_with_less(tmp_path: Path) -> None:
    held = builders.examples([20, 20, 9], 5)
    objective = Hungry(30)
    loop = small_loop(tmp_path, objective=objective, held=held, budget=49)
    loop.models.policy.module.train()
    loss, _ = loop.validation_loss()
    assert loop.budget == 24
    assert loop.models.policy.module.training
    plain = small_loop(tmp_path, held=held, budget=20)
    assert loss == pytest.approx(plain.validation_loss()[0], rel=1e-6)


def test_where_no_smaller_budget_helps_it_is_an_error_with_a_cure(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, objective=Hungry(LONGEST - 1), train=builders.examples([LONGEST]))
    with pytest.raises(TrainingError, match=f"the longest example has {LONGEST}") as caught:
        loop.train()
    (fault,) = caught.value.faults
    assert fault.code == "memory"
    assert "gradient_checkpointing" in fault.cure
    assert loop.run.saved() == []


def test_a_budget_that_cuts_nothing_smaller_is_not_tried() -> None:
    tried = []

    def cut(sizes: Any, budget: int) -> list[list[int]]:
        tried.append(budget)
        return [[0, 1]] if budget >= 20 else [[0], [1]]

    assert memory.halved(8192, 10, cut, [10, 10], "") == 16
    assert tried[:3] == [8192, 4096, 2048]
    with pytest.raises(TrainingError):
        memory.halved(16, 10, cut, [10, 10], "")


@pytest.mark.parametrize("name", ["clip", "update"])
def test_the_optimizers_memory_is_no_matter_of_the_budget(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starve(*_: Any, **__: Any) -> Any:
        raise ERRORS[0]

    monkeypatch.setattr(Backend, name, starve)
    with pytest.raises(TrainingError, match="in the optimizer's update") as caught:
        small_loop(tmp_path).train()
    assert caught.value.faults[0].code == "memory"


def test_on_several_ranks_the_run_ends_and_names_the_smaller_budget(tmp_path: Path) -> None:
    loop = small_loop(tmp_path, objective=Hungry(30), budget=64)
    loop.backend.ranks = 2
    sizes = [e.size for e in loop.data.step(0)[0]]

    def starve() -> None:
        raise ERRORS[1]

    with pytest.raises(TrainingError, match="one of several ranks") as caught:
        loop._within_memory(sizes, starve)
    assert f"--resume {tmp_path} training.token_budget=32" in caught.value.faults[0].cure
    assert loop.budget == 64


def test_what_a_failed_attempt_held_is_let_go_before_the_next(tmp_path: Path) -> None:
    import weakref

    alive: list[Any] = []

    def work() -> int:
        if alive:
            assert alive[0]() is None, "the failed attempt's tensors are still there"
            return 1
        held = torch.zeros(10)
        alive.append(weakref.ref(held))
        raise RuntimeError("CUDA out of memory.")

    said: list[str] = []
    assert memory.retried(work, said.append) == 1
    assert said == ["CUDA out of memory."]


def test_a_copy_that_does_not_fit_is_written_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Callable[..., Any] = checkpoint.capture

    def capture(*args: Any, copy: bool = True) -> Any:
        if copy:
            raise ERRORS[3]
        return plain(*args, copy=False)

    monkeypatch.setattr(checkpoint, "capture", capture)
    loop = small_loop(tmp_path, max_steps=2, save_every=1)
    loop.train()
    assert [step for step, _ in loop.run.saved()] == [1, 2]
    checkpoint.verify(loop.run.checkpoint(1))


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_memory_really_runs_out(tmp_path: Path) -> None:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    script = str(TESTS / "engine" / "starving.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, str(tmp_path), "300000000"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["warnings"], "there was memory enough"
    assert found["budget"] < 60 * 512
    assert found["steps"] == 1
    assert found["losses"][0] == pytest.approx(found["losses"][1], abs=1e-6)
    assert found["apart"] < 1e-5
