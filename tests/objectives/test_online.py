"""Objectives that sample, against plain loops over plain sequences; what their settings change."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import builders
import numpy as np
import pytest
import torch
from stand_in import annotated, models_of, nudge, step

from luthier.core import kinds
from luthier.core.records import Answer, Example, Prompt
from luthier.models import valued
from luthier.models.run_models import RunModels
from luthier.objectives._rollout import Rollout, pruned
from objectives.test_contract import Length, Scripted, codec, record_of

#: What a plain loop is told of an answer: log-probabilities now, what stands in its rows, its
#: advantage or reward, the values now.
Plain = dict[str, Any]
CUTS: list[list[list[int]]] = [[[0, 1, 2]], [[1], [], [0, 2]]]


def build(kind: str, **settings: Any) -> Any:
    given = {"kind": kind, "rewards": "repetition", "max_new_tokens": 8, **settings}
    return kinds.build("objectives", kinds.config("objectives", given))


def policy(objective: Any) -> RunModels:
    sizes = {"vocab_size": len(builders.tokenizer()), "max_position_embeddings": 128}
    module = builders.tiny("gpt2", torch.float64, **sizes)
    models = models_of(module)
    if len(objective.heads) > 1:
        seen = valued.attach(module, own_trunk=getattr(objective, "own_value_trunk", False))
        torch.nn.init.normal_(seen.base.value_head.weight, std=0.3)
        models = RunModels(seen, models._method)
    models._method.keep_start(module)
    nudge(module, 0.02)  # away from its start before it samples
    return models


def rollout(
    objective: Any, models: RunModels, memory: dict[str, float] | None = None, count: int = 3
) -> tuple[list[Example], dict[str, float]]:
    """Prompts, scripted answers, columns, credit; then the policy moves."""
    asked = [record_of(Prompt, number) for number in range(count)]
    generator = Scripted(len(builders.tokenizer()), codec().end_tokens[0])
    made = objective.collect(asked, codec(), generator, {"length": Length()}, seed=3)
    made = annotated(objective, models, made)
    credited, figures = objective.credit(made, {} if memory is None else memory)
    nudge(models.policy.module, 0.03)
    return list(credited), figures


def by_hand(
    objective: Any, models: RunModels, examples: list[Example], answer: Callable[[Plain], Any]
) -> dict[str, float]:
    """Terms from plain sequences, each answer alone behind its prompt; leaves the gradient.

    ``answer`` gives, of each term, its sum over an answer and what that weighs.
    """
    module = models.policy.module
    models.policy.base.set_attn_implementation("sdpa")  # type: ignore[attr-defined]
    sums: dict[str, Any] = {}
    totals: dict[str, float] = {}
    for example in examples:
        table, answers = example.targets["lm"], example.targets["answer"]
        prompt = example.segments[0].tokens
        for row, segment in enumerate(answers["segment"]):
            tokens = example.segments[segment].tokens
            ids = torch.tensor(np.concatenate([prompt, tokens]))[None]
            states = module.transformer(ids).last_hidden_state[0, len(prompt) - 1 : -1]  # type: ignore[operator,union-attr]
            logits = module.lm_head(states) / objective.config.temperature  # type: ignore[operator]
            mine = table["segment"] == segment
            plain: Plain = {n: torch.tensor(c[mine]) for n, c in table.items()}
            plain |= {f"answer_{n}": float(c[row]) for n, c in answers.items()}
            plain["group"] = answers["reward"]
            logprobs = logits.log_softmax(-1)
            plain["now"] = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0]
            plain["entropy"] = -(logprobs.exp() * logprobs).sum(-1)
            if hasattr(module, "value_trunk"):
                states = module.value_trunk(ids).last_hidden_state[0, len(prompt) - 1 : -1]  # type: ignore[operator]
            if hasattr(module, "value_head"):
                plain["value"] = module.value_head(states)[:, 0]  # type: ignore[operator]
            for name, (term, weight) in answer(plain).items():
                sums[name] = sums.get(name, 0.0) + term
                totals[name] = totals.get(name, 0.0) + weight
    module.zero_grad(set_to_none=True)
    means = {name: term / totals[name] for name, term in sums.items()}
    torch.stack(list(means.values())).sum().backward()
    return {name: float(mean.detach()) for name, mean in means.items()}


def same(objective: Any, models: RunModels, examples: list[Example], answer: Any) -> None:
    """The step's terms and gradients are those by hand, however it is cut."""
    watched = objective.watched
    for cuts in CUTS:
        gradients, means = step(objective, models, [[examples[i] for i in cut] for cut in cuts])
        expected = by_hand(objective, models, examples, answer)
        learned = {name: mean for name, mean in means.items() if name not in watched}
        assert learned == pytest.approx(expected, abs=1e-9)
        assert builders.gap(gradients, builders.gradients(models.policy.module)) < 1e-9
        assert max(float(g.abs().max()) for g in gradients.values()) > 1e-6


def surrogate(apart: Any, advantage: Any, low: float, high: float) -> Any:
    ratio = apart.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


# GRPO


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clip": 0.1, "clip_high": 0.3, "kl": 0.1},
        {"loss": "answer", "kl": 0.04, "kl_estimator": "k3"},
        {"loss": "constant", "scale": "none"},
        {"loss": "answer", "ratio": "sequence", "clip": 0.02},
        {"scale": "batch", "temperature": 0.7},
    ],
    ids=str,
)
def test_grpo_is_its_equation(settings: dict[str, Any]) -> None:
    objective = build("grpo", answers=4, mini_batches=2, **settings)
    models = policy(objective)
    examples, figures = rollout(objective, models)
    c = objective.config
    every = [e.targets["answer"]["reward"] for e in examples]
    spread = np.concatenate(every).std(ddof=1)

    def answer(plain: Plain) -> Any:
        group = plain["group"]
        own = {"group": group.std(ddof=1), "batch": spread}.get(c.scale)
        advantage = plain["answer_reward"] - group.mean()
        advantage = advantage / (own + 1e-4) if own is not None else advantage
        assert plain["advantage"].tolist() == pytest.approx(
            [advantage] * len(plain["now"]), abs=1e-5
        )
        advantage = plain["advantage"].double()
        size = len(plain["now"])
        share = {"token": 1.0, "answer": 1 / size, "constant": 1 / c.max_new_tokens}[c.loss]
        share = float(np.float32(share))
        weight = size if c.loss == "token" else 1
        apart = plain["now"] - plain["old_logprob"]
        if c.ratio == "sequence":
            apart = apart.mean().expand(size)
        high = c.clip if c.clip_high is None else c.clip_high
        found = {"policy": (share * surrogate(apart, advantage, c.clip, high).sum(), weight)}
        if c.kl:
            far = plain["now"] - plain["reference_logprob"]
            pull = far**2 / 2 if c.kl_estimator == "k2" else (-far).exp() - 1 + far
            found["kl"] = (c.kl * share * pull.sum(), weight)
        return found

    same(objective, models, examples, answer)
    assert figures["reward"] == pytest.approx(float(np.concatenate(every).mean()), abs=1e-6)
    assert ("kl" in figures) == bool(c.kl)


def test_without_a_second_update_no_old_logprob_is_asked_and_no_ratio_is_but_1() -> None:
    objective = build("grpo", answers=4)
    models = policy(objective)
    examples, _ = rollout(objective, models)
    assert "old_logprob" not in examples[0].targets["lm"]
    gradients, means = step(objective, models, [examples])
    assert means["clipped"] == 0

    def answer(plain: Plain) -> Any:
        advantage = plain["advantage"].double()
        return {"policy": (-(advantage * plain["now"]).sum(), len(plain["now"]))}

    by_hand(objective, models, examples, answer)
    assert builders.gap(gradients, builders.gradients(models.policy.module)) < 1e-9


def test_what_is_watched_of_grpo() -> None:
    objective = build("grpo", answers=4, mini_batches=2, kl_stop=9, clip=0.01)
    models = policy(objective)
    examples, _ = rollout(objective, models)
    _, means = step(objective, models, [examples])
    seen: dict[str, list[float]] = {"entropy": [], "divergence": [], "clipped": []}

    def answer(plain: Plain) -> Any:
        seen["entropy"] += plain["entropy"].tolist()
        far = (plain["now"] - plain["reference_logprob"]).detach()
        seen["divergence"] += ((-far).exp() - 1 + far).tolist()
        ratio = (plain["now"] - plain["old_logprob"]).exp()
        over = torch.where(plain["advantage"] > 0, ratio > 1.01, ratio < 0.99)
        seen["clipped"] += over.double().tolist()
        return {"policy": (plain["now"].sum(), 1)}

    by_hand(objective, models, examples, answer)
    for name, values in seen.items():
        assert means[name] == pytest.approx(np.mean(values), abs=1e-9), name
    assert 0.1 < means["clipped"] < 1


def test_a_group_that_earned_the_same_is_not_kept() -> None:
    objective = build("grpo", answers=2)
    models = policy(objective)
    [example, *_], _ = rollout(objective, models)
    assert objective.keeps(example)
    answers = {**example.targets["answer"], "reward": np.ones(2, dtype=np.float32)}
    equal = Example(example.segments, {**example.targets, "answer": answers}, example.origin)
    assert not objective.keeps(equal)


# PPO


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gamma": 0.9, "lam": 0.5, "whiten_advantages": False, "entropy": 0.01, "answers": 2},
        {"kl": 0.3, "kl_in": "loss", "value_clip": None, "clip_high": 0.4},
        {"kl": 0.0, "whiten_rewards": True, "missing_end_penalty": 1.0},
        {"value_trunk": "own", "answers": 2},
    ],
    ids=str,
)
def test_ppo_is_its_equation(settings: dict[str, Any]) -> None:
    objective = build("ppo", **{"value_weight": 0.5, **settings})
    models = policy(objective)
    examples, figures = rollout(objective, models)
    c = objective.config
    found = credited_by_hand(objective, examples)
    at = iter(found)

    def answer(plain: Plain) -> Any:
        size = len(plain["now"])
        advantage, returns = (torch.tensor(x) for x in next(at))
        near = {"abs": 2e-5}
        assert plain["advantage"].tolist() == pytest.approx(advantage.tolist(), **near)
        assert plain["return"].tolist() == pytest.approx(returns.tolist(), **near)
        advantage, returns = plain["advantage"].double(), plain["return"].double()
        high = c.clip if c.clip_high is None else c.clip_high
        apart = plain["now"] - plain["old_logprob"]
        errors = (plain["value"] - returns) ** 2
        if c.value_clip is not None:
            moved = (plain["value"] - plain["old_value"]).clamp(-c.value_clip, c.value_clip)
            errors = torch.maximum(errors, (plain["old_value"] + moved - returns) ** 2)
        terms = {
            "policy": (surrogate(apart, advantage, c.clip, high).sum(), size),
            "value": (c.value_weight * errors.sum() / 2, size),
        }
        if c.entropy:
            terms["bonus"] = (-c.entropy * plain["entropy"].sum(), size)
        if c.kl and c.kl_in == "loss":
            far = plain["now"] - plain["reference_logprob"]
            terms["kl"] = (c.kl * (far**2 / 2).sum(), size)
        return terms

    def once(plain: Plain) -> Any:
        nonlocal at
        try:
            return answer(plain)
        except StopIteration:
            at = iter(found)
            return answer(plain)

    same(objective, models, examples, once)
    assert math.isfinite(figures["explained_variance"])


def credited_by_hand(objective: Any, examples: list[Example]) -> list[tuple[Any, Any]]:
    """Advantages and returns of each answer, token by token, as PPO's papers have them."""
    c = objective.config
    rewards, values = [], []
    for example in examples:
        table, answers = example.targets["lm"], example.targets["answer"]
        for row, segment in enumerate(answers["segment"]):
            mine = table["segment"] == segment
            earned = np.zeros(mine.sum())
            if c.kl and c.kl_in == "reward":
                earned -= c.kl * (table["old_logprob"][mine] - table["reference_logprob"][mine])
            earned[-1] += answers["reward"][row]
            rewards.append(earned)
            values.append(table["old_value"][mine])
    if c.whiten_rewards:
        flat = np.concatenate(rewards)
        mean, spread = flat.mean(), math.sqrt(flat.var() + 1e-8)
        rewards = [(each - mean) / spread + mean for each in rewards]
    advantages = []
    for earned, value in zip(rewards, values, strict=True):
        found, after = np.zeros(len(earned)), 0.0
        for t in reversed(range(len(earned))):
            following = value[t + 1] if t + 1 < len(value) else 0.0
            after = earned[t] + c.gamma * following - value[t] + c.gamma * c.lam * after
            found[t] = after
        advantages.append(found)
    returns = [a + v for a, v in zip(advantages, values, strict=True)]
    if c.whiten_advantages:
        flat = np.concatenate(advantages)
        advantages = [(a - flat.mean()) / math.sqrt(flat.var() + 1e-8) for a in advantages]
    return list(zip(advantages, returns, strict=True))


def test_the_pull_follows_its_target() -> None:
    memory: dict[str, float] = {}
    objective = build("ppo", kl=0.1, kl_target=1e-6, kl_horizon=10)
    _, figures = rollout(objective, policy(objective), memory)
    assert figures["pull"] == 0.1
    assert memory["kl"] == pytest.approx(0.1 * (1 + math.copysign(0.2, figures["answer_kl"]) * 0.3))
    _, figures = rollout(objective, policy(objective), memory)
    assert figures["pull"] == pytest.approx(0.1 * (1 + math.copysign(0.06, figures["answer_kl"])))


def test_an_answer_without_an_end_is_fined() -> None:
    fined, plain = (
        [e.targets["answer"] for e in rollout(o, policy(o))[0]]
        for o in (build("ppo", missing_end_penalty=2.0), build("ppo"))
    )
    for a, b in zip(fined, plain, strict=True):
        assert a["reward"].tolist() == pytest.approx((b["reward"] - 2 * (1 - b["ended"])).tolist())
    assert {float(x) for a in fined for x in a["ended"]} == {0.0, 1.0}


# The others


@pytest.mark.parametrize("settings", [{}, {"mini_batches": 2, "kl": 0}], ids=str)
def test_rloo_is_its_equation(settings: dict[str, Any]) -> None:
    objective = build("rloo", answers=3, **settings)
    models = policy(objective)
    examples, _ = rollout(objective, models)
    c = objective.config
    expected = []
    for example in examples:
        table, answers = example.targets["lm"], example.targets["answer"]
        rewards = []
        for row, segment in enumerate(answers["segment"]):
            mine, reward = table["segment"] == segment, float(answers["reward"][row])
            if c.kl:
                said = table.get("old_logprob", table["sampled_logprob"])
                reward -= c.kl * float((said[mine] - table["reference_logprob"][mine]).sum())
            rewards.append(reward)
        expected += [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]
    given = np.concatenate([e.targets["answer"]["advantage"] for e in examples])
    assert given.tolist() == pytest.approx(expected, abs=1e-5)

    def answer(plain: Plain) -> Any:
        old = plain.get("old_logprob", plain["now"].detach())
        apart = (plain["now"] - old).sum()
        advantage = torch.tensor(plain["answer_advantage"], dtype=torch.float64)
        return {"policy": (surrogate(apart, advantage, c.clip, c.clip), 1)}

    same(objective, models, examples, answer)


def test_reinforce_is_its_equation_and_remembers_its_baseline() -> None:
    objective = build("reinforce", answers=2, kl=0, decay=0.5)
    models, memory = policy(objective), {"baseline": 1.0}
    examples, figures = rollout(objective, models, memory)
    rewards = np.concatenate([e.targets["answer"]["reward"] for e in examples])
    assert figures["baseline"] == 1.0
    assert memory["baseline"] == pytest.approx(0.5 + 0.5 * rewards.mean())
    given = np.concatenate([e.targets["answer"]["advantage"] for e in examples])
    assert given.tolist() == pytest.approx((rewards - 1.0).tolist(), abs=1e-6)

    def answer(plain: Plain) -> Any:
        return {"policy": (-plain["now"].sum() * plain["answer_advantage"], 1)}

    same(objective, models, examples, answer)
    fresh: dict[str, float] = {}
    _, figures = rollout(objective, policy(objective), fresh)
    assert figures["baseline"] == pytest.approx(rewards.mean())


def test_online_dpo_is_its_equation_over_the_best_and_the_worst() -> None:
    objective = build("online_dpo", answers=4, beta=0.3)
    models = policy(objective)
    examples, figures = rollout(objective, models)
    assert figures["pairs"] == 1.0
    assert all(len(e.segments) == 3 for e in examples)
    margins: list[dict[float, Any]] = []

    def answer(plain: Plain) -> Any:
        ahead = (plain["now"] - plain["reference_logprob"]).sum()
        if not margins or len(margins[-1]) == 2:
            margins.append({})
        margins[-1][plain["answer_side"]] = ahead
        if len(margins[-1]) < 2:
            return {}
        margin = 0.3 * (margins[-1][1.0] - margins[-1][-1.0])
        return {"preference": (-torch.nn.functional.logsigmoid(margin), 1)}

    same(objective, models, examples, answer)
    for example in examples:
        answers = example.targets["answer"]
        assert answers["reward"][answers["side"] == 1] > answers["reward"][answers["side"] == -1]


def test_best_of_n_learns_the_best_answer_alone() -> None:
    objective = build("best_of_n", answers=4)
    models = policy(objective)
    examples, figures = rollout(objective, models)
    assert figures["learned"] == 1.0
    assert figures["best_reward"] > figures["reward"]

    def answer(plain: Plain) -> Any:
        return {"nll": (-plain["now"].sum(), len(plain["now"]))}

    same(objective, models, examples, answer)
    strict = build("best_of_n", answers=4, least=1e9)
    assert rollout(strict, policy(strict))[0] == []


# What they share


def test_a_pruned_tree_is_the_tree_of_what_is_left() -> None:
    objective = build("grpo", answers=4)
    models = policy(objective)
    examples, _ = rollout(objective, models)
    whole = Rollout.of(examples)
    kept = [pruned(example, [1, 3]) for example in examples]
    some = Rollout.of(kept)
    chosen = whole.answers["reward"].reshape(-1, 4)[:, [1, 3]].flatten()
    assert some.answers["reward"].tolist() == chosen.tolist()

    def logprobs(rows: list[Example]) -> Any:
        from luthier.data.batching import collate

        batch = collate(rows)
        with torch.no_grad():
            return objective.said(models.policy, batch)[0], batch.targets["lm"]["segment"]

    for before, after in zip(examples, kept, strict=True):
        (a, owner), (b, _) = logprobs([before]), logprobs([after])
        assert torch.allclose(a[(owner == 2) | (owner == 4)], b, atol=1e-10)


class Slow(Length):
    """A reward that has to be waited for."""

    slow = True


def test_slow_rewards_are_what_they_would_be_at_once() -> None:
    objective = build("grpo", answers=3)
    asked = [record_of(Prompt, number) for number in range(5)]
    generator = Telling(len(builders.tokenizer()), codec().end_tokens[0])
    slow, quick = (
        objective.collect(asked, codec(), generator, {"length": reward}, seed=3)
        for reward in (Slow(), Length())
    )
    for a, b in zip(slow, quick, strict=True):
        assert a.targets["answer"]["reward"].tolist() == b.targets["answer"]["reward"].tolist()


class Telling(Scripted):
    """Tells of groups in another order than that of the prompts."""

    def sample(self, prompts: Any, answers: int, seed: int, **settings: Any) -> Any:
        groups = super().sample(prompts, answers, seed)
        for number in reversed(range(len(groups) - 1)):  # of the first one it says nothing at all
            settings["told"](number + 1, groups[number + 1])
        return groups


def test_stop_strings_are_left_out_of_what_rewards_see() -> None:
    seen: list[str] = []

    class Reading(Length):
        def score(self, prompts: Any, answers: Any) -> list[float]:
            seen.extend(answers)
            return super().score(prompts, answers)

    class Saying(Scripted):
        def sample(self, prompts: Any, answers: int, seed: int, **settings: Any) -> Any:
            said = tuple(codec().tokenizer.encode("one\n\ntwo", add_special_tokens=False))
            return [[Answer(said, True)] * answers for _ in prompts]

    objective = build("grpo", answers=2, stop=["\n\n"])
    made = objective.collect(
        [record_of(Prompt, 0)], codec(), Saying(9, 0), {"length": Reading()}, seed=0
    )
    assert seen == ["one", "one"]
    assert made[0].targets["answer"]["duplicate"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("grpo", {"clip": 0.1}, "clip"),
        ("grpo", {"kl_estimator": "k3"}, "kl_estimator"),
        ("ppo", {"kl_target": 1.0, "kl_in": "loss"}, "kl_target"),
        ("ppo", {"kl_horizon": 5}, "kl_horizon"),
        ("rloo", {"answers": 1}, "greater than or equal to 2"),
        ("grpo", {"rewards": []}, "rewards"),
    ],
)
def test_settings_without_effect_are_refused(
    kind: str, settings: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(kinds.BadConfigError, match=said):
        build(kind, **settings)
