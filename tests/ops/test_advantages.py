"""Advantages against plain slow loops; KL estimators as figures and as losses."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.ops.advantages import (
    explained_variance,
    gae,
    group_relative,
    kl_estimate,
    kl_loss,
    leave_one_out,
    per_answer,
    whiten,
)


def doubles(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


groups = st.lists(
    st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=5),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(groups)
def test_a_groups_advantages_are_those_of_a_plain_loop(rewards: list[list[float]]) -> None:
    flat = doubles([r for group in rewards for r in group])
    owner = torch.tensor([7 * n for n, group in enumerate(rewards) for _ in group])
    every = flat.tolist()
    over_all = statistics.stdev(every) if len(every) > 1 else 0.0
    relative, unscaled, by_batch, left_out = [], [], [], []
    for group in rewards:
        mean = sum(group) / len(group)
        spread = statistics.stdev(group) if len(group) > 1 else 0.0
        for place, reward in enumerate(group):
            others = [r for n, r in enumerate(group) if n != place]
            relative.append((reward - mean) / (spread + 1e-4))
            unscaled.append(reward - mean)
            by_batch.append((reward - mean) / (over_all + 1e-4))
            left_out.append(reward - sum(others) / len(others) if others else 0.0)
    near = {"rel": 1e-6, "abs": 1e-6}
    assert group_relative(flat, owner).tolist() == pytest.approx(relative, **near)
    assert group_relative(flat, owner, "none").tolist() == pytest.approx(unscaled, **near)
    assert group_relative(flat, owner, "batch").tolist() == pytest.approx(by_batch, **near)
    assert leave_one_out(flat, owner).tolist() == pytest.approx(left_out, **near)


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    rewards, owner = doubles([2.0, 2.0, 2.0, 1.0, 0.0]), torch.tensor([0, 0, 0, 1, 1])
    assert group_relative(rewards, owner)[:3].tolist() == [0, 0, 0]
    assert group_relative(rewards, owner)[3:].tolist() == pytest.approx([0.707, -0.707], abs=1e-3)


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    found = []
    for t in range(len(rewards)):
        total = 0.0
        for later in range(t, len(rewards)):
            following = values[later + 1] if later + 1 < len(values) else 0.0
            delta = rewards[later] + gamma * following - values[later]
            total += (gamma * lam) ** (later - t) * delta
        found.append(total)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=7),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([1.0, 0.9]),
    st.sampled_from([0.0, 0.95, 1.0]),
)
def test_gae_is_its_sum_term_by_term(
    answers: list[list[tuple[float, float]]], gamma: float, lam: float
) -> None:
    rewards = doubles([r for answer in answers for r, _ in answer])
    values = doubles([v for answer in answers for _, v in answer])
    owner = torch.tensor([3 * n for n, answer in enumerate(answers) for _ in answer])
    expected = [
        advantage
        for answer in answers
        for advantage in slow_gae([r for r, _ in answer], [v for _, v in answer], gamma, lam)
    ]
    assert gae(rewards, values, owner, gamma, lam).tolist() == pytest.approx(expected, abs=1e-9)


def test_gae_knows_its_two_ends() -> None:
    rewards, values = doubles([0.0, 0.0, 1.0]), doubles([0.2, 0.5, 0.9])
    owner = torch.zeros(3, dtype=torch.long)
    assert gae(rewards, values, owner, 1.0, 1.0).tolist() == pytest.approx([0.8, 0.5, 0.1])
    assert gae(rewards, values, owner, 1.0, 0.0).tolist() == pytest.approx([0.3, 0.4, 0.1])
    nothing = doubles([])
    assert gae(nothing, nothing, torch.zeros(0, dtype=torch.long)).tolist() == []


def test_whitened_values_have_mean_0_and_variance_1() -> None:
    values = doubles([3.0, -1.0, 0.5, 8.0, 2.0])
    white = whiten(values)
    assert float(white.mean()) == pytest.approx(0, abs=1e-12)
    assert float(white.var(correction=0)) == pytest.approx(1, abs=1e-6)
    kept = whiten(values, shift=False)
    assert float(kept.mean()) == pytest.approx(float(values.mean()))
    assert float(kept.var(correction=0)) == pytest.approx(1, abs=1e-6)
    assert whiten(doubles([4.0])).tolist() == [4.0]


def test_sums_by_answer() -> None:
    owner = torch.tensor([0, 2, 2])
    assert per_answer(doubles([1.0, 2.0, 4.0]), owner, 3).tolist() == [1.0, 0.0, 6.0]


# KL: every token of a small vocabulary, weighed by its probability, is the mean over samples.


def distributions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 6, generator=generator, dtype=torch.float64) * 0.4
    return logits[0].clone().requires_grad_(True), logits[1].log_softmax(-1)


def test_k1_and_k3_are_unbiased_and_k2_is_near() -> None:
    logits, reference = distributions()
    policy = logits.log_softmax(-1).detach()
    truth = float((policy.exp() * (policy - reference)).sum())
    means = {
        kind: float((policy.exp() * kl_estimate(policy, reference, kind)).sum())
        for kind in ("k1", "k2", "k3")
    }
    assert means["k1"] == pytest.approx(truth, abs=1e-12)
    assert means["k3"] == pytest.approx(truth, abs=1e-12)
    assert means["k2"] != pytest.approx(truth, abs=1e-6)
    assert means["k2"] == pytest.approx(truth, rel=0.3)
    assert bool((kl_estimate(policy, reference, "k3") >= 0).all())


def gradient(value: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(value, of, retain_graph=True)
    return found


def test_k2_has_the_gradient_of_the_kl_and_k3_that_of_the_other_one() -> None:
    logits, reference = distributions()
    policy = logits.log_softmax(-1)
    sampled = policy.detach().exp()
    forward = gradient((policy.exp() * (policy - reference)).sum(), logits)
    backward = gradient((reference.exp() * (reference - policy)).sum(), logits)
    k2 = gradient((sampled * kl_loss(policy, reference, "k2")).sum(), logits)
    k3 = gradient((sampled * kl_loss(policy, reference, "k3")).sum(), logits)
    k1 = gradient((sampled * kl_estimate(policy, reference, "k1")).sum(), logits)
    assert torch.allclose(k2, forward, atol=1e-12)
    assert torch.allclose(k3, backward, atol=1e-12)
    assert not torch.allclose(forward, backward, atol=1e-3)
    assert float(k1.abs().max()) < 1e-12, "no signal at all"


def test_a_critic_is_as_good_as_what_it_explains() -> None:
    returns = doubles([0.0, 1.0, 2.0, 5.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full_like(returns, 2.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones_like(returns)) == 0.0
    assert math.isfinite(explained_variance(returns[:1], returns[:1]))
