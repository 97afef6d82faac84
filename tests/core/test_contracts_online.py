"""The contract of online objectives: a sampled group as a tree, three terms of three weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from stand_in import Base, Means, annotated, branching, models_of, nudge, origin, rows, step, train
from torch import Tensor, nn

from luthier.core import kinds
from luthier.core.codec import Codec
from luthier.core.contracts import (
    FrozenColumns,
    Generator,
    Head,
    HeadedModel,
    Models,
    OnlineObjective,
    Reward,
)
from luthier.core.records import Answer, Batch, Example, Prompt, Record, Turn
from luthier.data.batching import collate
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels

GROUP = 4


class Valued(CausalModel):
    """A causal model with a value head, as a model file of its own would have it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        if not hasattr(self.base, "value_head"):
            torch.manual_seed(5)
            width = self.config.hidden_size
            self.base.value_head = nn.Linear(width, 1, dtype=next(module.parameters()).dtype)

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        ends = torch.tensor(batch.segments.starts) + torch.tensor(batch.segments.lengths) - 1
        return hidden[ends[segments]]

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        assert head == "value", f"this model has no head '{head}'"
        out: Tensor = self.base.value_head(rows)
        return out


class Scripted:
    """A generator without a model: answers of random tokens, drawn by the seed."""

    def __init__(self, vocabulary: int, end: int) -> None:
        self.vocabulary, self.end = vocabulary, end

    def sample(
        self, prompts: Sequence[Sequence[int]], answers: int, seed: int, **settings: Any
    ) -> list[list[Answer]]:
        rng = np.random.default_rng(seed)
        groups = []
        for _ in prompts:
            group = []
            for _ in range(answers):
                said = rng.integers(8, self.vocabulary, int(rng.integers(1, 8))).tolist()
                ended = bool(rng.random() < 0.7)
                group.append(Answer(tuple([*said, self.end] if ended else said), ended))
            groups.append(group)
        return groups


class Length:
    """Rewards answers of the length that the prompt's check asks for: a rule needs the check."""

    slow = False

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        return [
            -abs(len(answer) - int(prompt.check["length"])) / 10
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


class Grpo(Base):
    """Group-relative policy optimisation (Shao et al. 2024) with a critic, as hard as it gets.

    ``min(r A, clip(r) A)`` over tokens, the k3 estimate of the KL to the reference over tokens,
    and half the squared error of the value at each answer's prompt over answers.
    """

    records = (Prompt,)
    needs_reference = True
    heads = (Head("lm"), Head("value"))
    watched = frozenset({"clipped"})
    inner_epochs = 2
    mini_batches = 1
    redraws = 0

    def longest(self, prompt: int) -> int:
        return prompt + GROUP * 8

    def keeps(self, example: Example) -> bool:
        return True

    def credit(self, examples: Any, memory: dict[str, float]) -> Any:
        return examples, {}

    def alarm(self, figures: Mapping[str, float]) -> str | None:
        return None

    def encode(self, record: Record, codec: Codec) -> Example:
        raise AssertionError("an online objective's examples come from collect")

    def collect(
        self,
        records: Sequence[Record],
        codec: Codec,
        generator: Generator,
        rewards: Mapping[str, Reward],
        seed: int,
    ) -> Sequence[Example]:
        asked = [record for record in records if isinstance(record, Prompt)]
        prompts = [codec.prompt(record.turns) for record in asked]
        groups = generator.sample(prompts, GROUP, seed, temperature=1.0)
        made = []
        for record, prompt, group in zip(asked, prompts, groups, strict=True):
            texts = [codec.decode(answer.tokens) for answer in group]
            scores = np.zeros(GROUP)
            for reward in rewards.values():
                scores += reward.score([record] * GROUP, texts)
            segments, table = branching(prompt, [answer.tokens for answer in group])
            answers = {
                "segment": np.arange(1, GROUP + 1),
                "position": np.full(GROUP, len(prompt) - 1),
                "reward": (scores - scores.mean()) / (scores.std() + 1e-4),
                "ended": np.array([answer.ended for answer in group]),
            }
            made.append(Example(segments, {"lm": table, "answer": answers}, record.origin))
        return made

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """What the policy said when it sampled, and the advantages that follow from it."""
        table, answer = batch.targets["lm"], batch.targets["answer"]
        with torch.no_grad():
            hidden = models.policy.hidden(batch)
            old, _ = models.policy.logprobs(batch, hidden)
            value = self.values(models, batch, hidden)
        with models.reference() as reference:
            first, _ = reference.logprobs(batch, reference.hidden(batch))
        by_segment = value.new_zeros(len(batch.segments.starts))
        by_segment[answer["segment"]] = answer["reward"] - value
        advantage = by_segment[table["segment"]]
        return {
            "lm": {"old_logprob": old, "reference_logprob": first, "advantage": advantage},
            "answer": {"old_value": value},
        }

    def values(self, models: Models, batch: Batch, hidden: Tensor) -> Tensor:
        policy = models.policy
        assert isinstance(policy, HeadedModel)
        return policy.outputs("value", hidden[batch.targets["answer"]["position"]])[:, 0]

    def weights(self, batch: Batch) -> dict[str, float]:
        tokens, answers = float(rows(batch, "lm")), float(rows(batch, "answer"))
        return {"policy": tokens, "kl": tokens, "value": answers, "clipped": tokens}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        table, answer = batch.targets["lm"], batch.targets["answer"]
        hidden = models.policy.hidden(batch)
        logprobs, _ = models.policy.logprobs(batch, hidden)
        ratio = (logprobs - table["old_logprob"]).exp()
        bounded = ratio.clamp(0.8, 1.2)
        gain = torch.minimum(ratio * table["advantage"], bounded * table["advantage"])
        away = table["reference_logprob"] - logprobs
        error = self.values(models, batch, hidden) - answer["reward"]
        return {
            "policy": -gain.sum(),
            "kl": 0.04 * (away.exp() - away - 1).sum(),
            "value": 0.1 * (error**2 / 2).sum(),
            "clipped": (ratio.detach() != bounded.detach()).double().sum(),
        }


class PlainGrpo(Grpo):
    """Without the figure that is only watched: what the engine's loop knows today."""

    watched: frozenset[str] = frozenset()

    def weights(self, batch: Batch) -> dict[str, float]:
        return {n: w for n, w in super().weights(batch).items() if n != "clipped"}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        return {n: t for n, t in super().loss(models, batch).items() if n != "clipped"}


def valued(architecture: str = "gpt2") -> RunModels:
    """A policy with a value head and its reference, at step 0."""
    settings = {"vocab_size": len(builders.tokenizer()), "max_position_embeddings": 128}
    module = builders.tiny(architecture, torch.float64, **settings)
    Valued(module)
    models = models_of(module)
    return RunModels(Valued(module), models._method)


def rollout(objective: Grpo, models: RunModels, count: int = 3) -> list[Example]:
    """A group of answers to each prompt, with everything that is fixed from now on."""
    asked = [
        Prompt(origin(i + 1), (Turn("user", f"tell me of number {i}"),), {"length": 7 * i})
        for i in range(count)
    ]
    codec = builders.codec()
    generator = Scripted(len(builders.tokenizer()), codec.end_tokens[0])
    examples = objective.collect(asked, codec, generator, {"length": Length()}, seed=3)
    return annotated(objective, models, examples)


def test_the_protocols_are_kept() -> None:
    assert isinstance(Grpo(), OnlineObjective)
    assert isinstance(Grpo(), FrozenColumns)
    assert isinstance(valued().policy, HeadedModel)
    assert not isinstance(models_of(builders.tiny()).policy, HeadedModel)


def test_a_group_is_a_tree_and_its_end_tokens_are_learned() -> None:
    objective, models = Grpo(), valued()
    end = builders.codec().end_tokens[0]
    for example in rollout(objective, models):
        assert [s.parent for s in example.segments] == [None] + [0] * GROUP
        table, answers = example.targets["lm"], example.targets["answer"]
        first = table["position"] == len(example.segments[0].tokens) - 1
        assert first.sum() == GROUP, "the prompt's last token predicts every answer's first"
        for segment, ended in zip(answers["segment"], answers["ended"], strict=True):
            learned = table["token"][table["segment"] == segment]
            assert learned.tolist() == example.segments[segment].tokens.tolist()
            assert (learned[-1] == end) == ended
        assert abs(answers["reward"].mean()) < 1e-9, "relative to its group"
        assert {"old_logprob", "reference_logprob", "advantage"} <= set(table)


def test_at_the_moment_of_sampling_nothing_is_clipped_and_nothing_is_far() -> None:
    objective, models = Grpo(), valued()
    examples = rollout(objective, models)
    _, means = step(objective, models, [examples])
    every = np.concatenate([e.targets["lm"]["advantage"] for e in examples])
    assert means["policy"] == pytest.approx(-every.mean(), abs=1e-9)
    assert means["kl"] == pytest.approx(0, abs=1e-12)
    assert means["clipped"] == 0


def by_hand(models: RunModels, examples: Sequence[Example]) -> Means:
    """The three terms from plain sequences, each answer alone behind its prompt."""
    module = models.policy.module
    models.policy.base.set_attn_implementation("sdpa")
    policy, kl, value = [], [], []
    for example in examples:
        table, answers = example.targets["lm"], example.targets["answer"]
        prompt = example.segments[0].tokens
        for row, segment in enumerate(answers["segment"]):
            answer = example.segments[segment].tokens
            ids = torch.tensor(np.concatenate([prompt, answer]))[None]
            states = module.transformer(ids).last_hidden_state[0]
            logits = module.lm_head(states[len(prompt) - 1 : -1])
            said = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
            mine = table["segment"] == segment
            old, first, advantage = (
                torch.tensor(table[n][mine])
                for n in ("old_logprob", "reference_logprob", "advantage")
            )
            ratio = (said - old).exp()
            policy.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
            kl.append(0.04 * ((first - said).exp() - (first - said) - 1))
            guess = module.value_head(states[len(prompt) - 1])[0]
            value.append(0.1 * (guess - answers["reward"][row])[None] ** 2 / 2)
    terms = {"policy": torch.cat(policy), "kl": torch.cat(kl), "value": torch.cat(value)}
    module.zero_grad(set_to_none=True)
    torch.stack([term.mean() for term in terms.values()]).sum().backward()
    return {name: float(term.detach().mean()) for name, term in terms.items()}


@pytest.mark.parametrize("cuts", [[[0, 1, 2]], [[1], [], [0, 2]], [[2], [0], [1], []]], ids=str)
def test_three_terms_of_three_weights_are_exact(cuts: list[list[int]]) -> None:
    objective, models = Grpo(), valued()
    examples = rollout(objective, models)
    nudge(models.policy.module, 0.05)
    gradients, means = step(objective, models, [[examples[i] for i in cut] for cut in cuts])
    assert 0 < means.pop("clipped") < 1
    expected = by_hand(models, examples)
    assert means == pytest.approx(expected, abs=1e-10)
    assert builders.gap(gradients, builders.gradients(models.policy.module)) < 1e-10
    assert float(gradients["value_head.weight"].abs().max()) > 0


def test_a_heads_rows_may_be_pooled_segments() -> None:
    objective, models = Grpo(), valued()
    policy = models.policy
    assert isinstance(policy, HeadedModel)
    batch = collate(rollout(objective, models))
    hidden = policy.hidden(batch)
    last = policy.pooled(batch, hidden, batch.targets["answer"]["segment"])
    assert policy.outputs("value", last).shape == (rows(batch, "answer"), 1)
    with pytest.raises(AssertionError, match="no head 'classification'"):
        policy.outputs("classification", last)


def test_the_engines_loop_climbs_on_a_frozen_rollout(tmp_path: Path) -> None:
    objective, models = PlainGrpo(), valued()
    seen = train(objective, models, rollout(objective, models), tmp_path)
    assert seen[-1]["policy"] < seen[0]["policy"] - 0.01
    assert seen[-1]["value"] < seen[0]["value"]
    assert seen[-1]["kl"] > 0


def test_a_reward_is_a_kind_of_its_own() -> None:
    assert kinds.FOLDERS["rewards"] == "Reward"
    prompts = [Prompt(origin(1), (), {"length": 3})] * 2
    assert Length().score(prompts, ["abc", "abcd"]) == [0.0, -0.1]
