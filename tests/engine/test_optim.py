"""Optimizers and schedules: parity with transformers, decay where it belongs, float32 masters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import builders
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine.small import small_loop
from luthier.core.recipe import TrainingSpec
from luthier.engine.optim import make_optimizer, rate_factor, set_rate, warmup_steps
from luthier.methods import full

SCHEDULES = ("constant", "linear", "cosine", "wsd")


def spec(**settings: Any) -> TrainingSpec:
    return TrainingSpec(**settings)


def group(*shapes: tuple[int, ...], decay: bool = True, rate: float = 1.0) -> dict[str, Any]:
    parameters = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    return {"params": parameters, "names": [], "rate": rate, "decay": decay}


def library(name: str, warmup: int, total: int, low: float) -> Callable[[int], float]:
    """transformers' own factor of a step."""
    import transformers.optimization as theirs

    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    made: Any
    if name == "constant":
        made = theirs.get_constant_schedule_with_warmup(optimizer, warmup)
    elif name == "linear":
        made = theirs.get_linear_schedule_with_warmup(optimizer, warmup, total)
    elif name == "cosine":
        made = theirs.get_cosine_with_min_lr_schedule_with_warmup(
            optimizer, warmup, total, min_lr_rate=low
        )
    else:
        decay = max(1, round(0.2 * (total - warmup)))
        made = theirs.get_wsd_schedule(
            optimizer,
            warmup,
            decay,
            num_training_steps=total,
            decay_type="linear",
            min_lr_ratio=low,
        )
    factor: Callable[[int], float] = made.lr_lambdas[0]
    return factor


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("low", [0.0, 0.1])
@pytest.mark.parametrize(("warmup", "total"), [(0, 20), (5, 45), (3, 100)])
def test_schedules_are_transformers_without_its_first_step_of_rate_zero(
    name: str, low: float, warmup: int, total: int
) -> None:
    if name == "linear" and low:
        return  # transformers has no linear schedule with a floor
    settings = spec(schedule=name, min_rate=low, warmup=warmup if warmup else 0.0)
    # Theirs begins with a step of rate zero: ours is theirs from the second step on.
    shift = 1 if warmup else 0
    theirs = library(name, warmup + shift, total + shift, low)
    # Their wsd also warms up from the floor.
    for step in range(warmup if name == "wsd" and low else 0, total):
        assert rate_factor(settings, step, total) == pytest.approx(theirs(step + shift), abs=1e-9)


@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 300),
    st.one_of(st.floats(0, 0.99), st.integers(1, 400).map(float)),
    st.floats(0, 1),
)
def test_no_step_is_wasted_and_none_is_above_the_peak(
    name: str, total: int, warmup: float, low: float
) -> None:
    settings = spec(schedule=name, warmup=warmup, min_rate=low)
    factors = [rate_factor(settings, step, total) for step in range(total)]
    assert all(0 < f <= 1 for f in factors)
    rising = warmup_steps(settings, total)
    assert rising <= total
    assert factors[:rising] == sorted(factors[:rising])
    assert factors[rising:] == sorted(factors[rising:], reverse=True)


def test_wsd_is_flat_until_the_last_fifth() -> None:
    settings = spec(schedule="wsd", warmup=0.0)
    factors = [rate_factor(settings, step, 100) for step in range(100)]
    assert factors[:81] == [1.0] * 81
    assert factors[81:] == pytest.approx([i / 20 for i in range(19, 0, -1)])


def test_warmup_is_a_share_or_a_number() -> None:
    assert warmup_steps(spec(warmup=0.1), 200) == 20
    assert warmup_steps(spec(warmup=30), 200) == 30
    assert warmup_steps(spec(warmup=30), 10) == 10


def test_matrices_decay_and_nothing_else() -> None:
    method = full.Method(full.Config())
    module = method.prepare(builders.tiny("gpt2"))
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    optimizer = make_optimizer(spec(weight_decay=0.5), method.param_groups(module), 0.1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        factor = 0.95 if parameter.ndim >= 2 else 1.0
        assert torch.allclose(parameter, before[name] * factor, atol=1e-7), name
    listed = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in module.parameters())


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_updates_are_torchs_own(kind: str) -> None:
    ours, theirs = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    settings = spec(optimizer=kind, betas=(0.8, 0.99), weight_decay=0.1)
    groups = [{"params": [ours], "names": ["w"], "rate": 1.0, "decay": True}]
    optimizer = make_optimizer(settings, groups, 0.01)
    other: torch.optim.Optimizer
    if kind == "adamw":
        other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.99), weight_decay=0.1)
    else:
        other = torch.optim.SGD([theirs], lr=0.01, momentum=0.8, weight_decay=0.1)
    torch.manual_seed(0)
    for _ in range(10):
        gradient = torch.randn(4, 3)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        other.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_groups_have_rates_of_their_own() -> None:
    optimizer = make_optimizer(spec(), [group((2, 2)), group((2, 2), rate=0.5)], 0.1)
    assert set_rate(optimizer, 0.1, 0.2) == pytest.approx(0.02)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.02, 0.01])


def test_five_hundred_small_steps_arrive_because_weights_are_float32() -> None:
    """The pitfall: w = 1, rate 1e-3, gradient 1: 0.5 in float32, still 1.0 in bfloat16."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        weight = nn.Parameter(torch.ones(1, 1, dtype=dtype))
        groups = [{"params": [weight], "names": ["w"], "rate": 1.0, "decay": True}]
        optimizer = make_optimizer(spec(), groups, 1e-3)
        for _ in range(500):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        found[dtype] = weight.item()
    assert found[torch.float32] == pytest.approx(0.5, abs=1e-3)
    assert found[torch.bfloat16] == 1.0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_in_bfloat16_keeps_float32_weights_and_moments(method: str, tmp_path: Any) -> None:
    loop = small_loop(tmp_path, method=method, precision="bfloat16")
    assert loop.train() == "finished"
    for parameter in loop.parameters.values():
        assert parameter.dtype == torch.float32
    moments = [v for s in loop.optimizer.state.values() for v in s.values()]
    assert moments
    assert {m.dtype for m in moments} == {torch.float32}
