"""AdamW in 8 bits: refused where it saves nothing, resumed exactly, close to AdamW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import pytest
import torch

from luthier.core.errors import RecipeError
from luthier.core.recipe import TrainingSpec
from luthier.core.rundir import RunDir
from luthier.engine import optim_8bit
from luthier.engine.checkpoint import State, capture, load, write
from luthier.engine.optim import make_optimizer

from . import small


@pytest.mark.parametrize("name", optim_8bit.KINDS)
def test_it_is_refused_without_a_gpu(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="this run is on cpu"):
        small.fitted(small.small_recipe(tmp_path / "run", optimizer=name))
    optim_8bit.check("adamw", torch.device("cpu"))
    optim_8bit.check(name, torch.device("cuda"))


def trained(optimizer: Any, weight: torch.nn.Parameter, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        weight.grad = weight.detach() + torch.randn(weight.shape, generator=generator)
        optimizer.step()


def made(name: str) -> tuple[Any, torch.nn.Parameter]:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(96, 64))
    groups = [{"params": [weight], "names": ["w"], "rate": 0.5, "decay": True}]
    spec = TrainingSpec(optimizer=name, weight_decay=0.1)
    return make_optimizer(spec, groups, 1e-2), weight


def test_its_steps_are_nearly_adamws_and_its_moments_bytes() -> None:
    ends = []
    for name in ("adamw", "adamw_8bit"):
        optimizer, weight = made(name)
        assert [g["lr"] for g in optimizer.param_groups] == [5e-3]
        assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1]
        trained(optimizer, weight, range(20))
        ends.append(weight.detach().clone())
    start = made("adamw")[1].detach()
    moved = float((ends[0] - start).norm())
    assert float((ends[1] - ends[0]).norm()) < 0.1 * moved
    state = optimizer.state[weight]
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8


def test_a_checkpoint_holds_it(tmp_path: Path) -> None:
    whole, expected = made("adamw_8bit")
    trained(whole, expected, range(8))
    first, weight = made("adamw_8bit")
    trained(first, weight, range(4))
    folder = write(RunDir(tmp_path), capture(State(step=4), {"w": weight}, first, {}))
    second, again = made("adamw_8bit")
    load(folder, {"w": again}, second)
    trained(second, again, range(4, 8))
    assert torch.equal(again, expected)
    assert builders.gap(again, made("adamw")[1]) > 1e-3
