"""The contract of objectives, tried against hard users that do not exist yet.

A preference pair with cached reference log-probabilities, a teacher's top logits, a figure of the
whole step: each is a throwaway objective here, through the real collate, models and backend.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stand_in import (
    Base,
    Means,
    annotated,
    apart,
    branching,
    models_of,
    nudge,
    origin,
    rows,
    step,
    train,
)
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import (
    Accompanied,
    FrozenColumns,
    Head,
    Models,
    Objective,
    StepStatistics,
    Watching,
)
from luthier.core.records import Batch, Example, Preference, Record, Thumb, Turn
from luthier.data.batching import collate, empty_like
from luthier.models.language_model import CausalModel


def spoken(codec: Codec, prompt: Sequence[Turn], answer: Sequence[Turn]) -> list[int]:
    """An answer's tokens, its end of turn included."""
    return [t for p in codec.last_turn((*prompt, *answer)) if p.answer for t in p.tokens]


# A preference pair: a tree, cached columns, terms of different weights, a figure to watch.


class Dpo(Base):
    """Direct preference optimisation (Rafailov et al. 2023), with a likelihood term in tokens.

    ``-log sigmoid(beta (chosen - rejected))`` over pairs, each side the answer's summed
    log-probability above the reference's.
    """

    records = (Preference,)
    needs_reference = True
    heads = (Head("lm"),)
    watched = frozenset({"accuracy"})

    def encode(self, record: Record, codec: Codec) -> Example:
        assert isinstance(record, Preference)
        answers = [spoken(codec, record.prompt, a) for a in (record.chosen, record.rejected)]
        segments, table = branching(codec.prompt(record.prompt), answers)
        pair = {"chosen": np.array([0]), "rejected": np.array([1])}
        table["side"] = (table["segment"] == 2).astype(np.int64)
        return Example(segments, {"lm": table, "pair": pair}, record.origin)

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        with models.reference() as reference:
            logprobs, _ = reference.logprobs(batch, reference.hidden(batch))
        return {"lm": {"reference_logprob": logprobs}}

    def weights(self, batch: Batch) -> dict[str, float]:
        table = batch.targets["lm"]
        pairs = float(rows(batch, "pair"))
        chosen = float((table["weight"] * (table["side"] == 0)).sum())
        return {"preference": pairs, "sft": chosen, "accuracy": pairs}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        table, pair = batch.targets["lm"], batch.targets["pair"]
        logprobs, _ = models.policy.logprobs(batch, models.policy.hidden(batch))
        above = (logprobs - self.reference(models, batch)) * table["weight"]
        sums = above.new_zeros(2 * len(batch.origins))
        sums = sums.index_add(0, 2 * table["example"] + table["side"], above)
        margin = sums[2 * pair["example"]] - sums[2 * pair["example"] + 1]
        liked = logprobs * table["weight"] * (table["side"] == 0)
        return {
            "preference": -F.logsigmoid(self.config.beta * margin).sum(),
            "sft": -0.1 * liked.sum(),
            "accuracy": (margin.detach() > 0).to(margin.dtype).sum(),
        }

    def reference(self, models: Models, batch: Batch) -> Tensor:
        cached: Tensor = batch.targets["lm"]["reference_logprob"]
        return cached


class LiveDpo(Dpo):
    """The same with the reference computed at every step."""

    def reference(self, models: Models, batch: Batch) -> Tensor:
        return self.columns(models, batch)["lm"]["reference_logprob"]


class PlainDpo(Dpo):
    """The same without a figure to watch."""

    watched: frozenset[str] = frozenset()

    def weights(self, batch: Batch) -> dict[str, float]:
        return {n: w for n, w in super().weights(batch).items() if n != "accuracy"}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        return {n: t for n, t in super().loss(models, batch).items() if n != "accuracy"}


def preferences(count: int = 5) -> list[Preference]:
    said = builders.SENTENCES
    return [
        Preference(
            origin(i + 1),
            (Turn("user", f"tell me of number {i}"),),
            (Turn("assistant", said[i % 6]),),
            (Turn("assistant", said[(i + 2) % 6][: 9 + i]),),
        )
        for i in range(count)
    ]


def pairs(objective: Dpo, count: int = 5) -> list[Example]:
    codec = builders.codec()
    return [objective.encode(record, codec) for record in preferences(count)]


def speaker(architecture: str = "llama", **changes: Any) -> Any:
    vocabulary = len(builders.tokenizer())
    if architecture == "llama":
        return builders.talking(vocabulary, **changes).double()
    changes = {"vocab_size": vocabulary, "max_position_embeddings": 128, **changes}
    return builders.tiny(architecture, torch.float64, **changes)


#: Llama's norms compute in float32 whatever they are given, and feel the order of sums.
WAYS = [("gpt2", "full", 1e-10), ("llama", "full", 1e-7), ("llama", "lora", 1e-7)]
ways = pytest.mark.parametrize(("architecture", "how", "tolerance"), WAYS)


@pytest.fixture(params=["full", "lora"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_preference_pair_starts_at_ln_2(method: str) -> None:
    objective, models = Dpo(), models_of(speaker(), method)
    examples = annotated(objective, models, pairs(objective))
    assert examples[0].targets["lm"]["reference_logprob"].dtype == np.float64
    _, means = step(objective, models, [examples])
    assert means["preference"] == pytest.approx(math.log(2), abs=1e-12)


def test_cached_reference_columns_are_the_live_reference(method: str) -> None:
    models = models_of(speaker(), method)
    examples = annotated(Dpo(), models, pairs(Dpo()))
    nudge(models.policy.module)
    cached, live = step(Dpo(), models, [examples]), step(LiveDpo(), models, [examples])
    assert builders.gap(cached[0], live[0]) < 1e-10
    assert cached[1] == pytest.approx(live[1], abs=1e-10)
    assert abs(cached[1]["preference"] - math.log(2)) > 1e-3, "the models have parted"


@ways
def test_a_shared_prompt_has_the_gradient_of_two_prompts(
    architecture: str, how: str, tolerance: float
) -> None:
    models = models_of(speaker(architecture), how)
    examples = annotated(Dpo(), models, pairs(Dpo()))
    nudge(models.policy.module)
    shared = step(Dpo(), models, [examples])
    unshared = step(Dpo(), models, [[apart(example) for example in examples]])
    assert builders.gap(shared[0], unshared[0]) < tolerance
    assert shared[1] == pytest.approx(unshared[1], abs=tolerance)
    assert sum(e.size for e in examples) < sum(apart(e).size for e in examples)


@pytest.mark.parametrize(
    "cuts", [[[0, 1, 2, 3, 4], []], [[0], [1, 4], [2, 3]], [[3], [0], [], [1], [2], [4]]], ids=str
)
def test_terms_of_different_weights_do_not_feel_the_micro_batches(cuts: list[list[int]]) -> None:
    """A micro-batch without rows is what a rank without work runs."""
    objective, models = Dpo(), models_of(speaker())
    examples = annotated(objective, models, pairs(objective))
    nudge(models.policy.module)
    whole = step(objective, models, [examples])
    divided = step(objective, models, [[examples[i] for i in cut] for cut in cuts])
    assert builders.gap(whole[0], divided[0]) < 1e-10
    assert whole[1] == pytest.approx(divided[1], abs=1e-10)


def test_a_watched_term_teaches_nothing() -> None:
    models = models_of(speaker())
    examples = annotated(Dpo(), models, pairs(Dpo()))
    nudge(models.policy.module)
    gradients, means = step(Dpo(), models, [examples])
    plain, _ = step(PlainDpo(), models, [examples])
    assert builders.gap(gradients, plain) == 0
    assert 0 <= means["accuracy"] <= 1


def test_the_engines_loop_learns_a_preference(method: str, tmp_path: Path) -> None:
    objective, models = Dpo(), models_of(speaker(), method)
    examples = annotated(objective, models, pairs(objective))
    seen = train(objective, models, examples, tmp_path)
    assert seen[0]["preference"] == pytest.approx(math.log(2), abs=1e-6)
    assert seen[-1]["preference"] < seen[0]["preference"] - 0.01
    assert "accuracy" not in seen[0], "what is watched is no term of the loss"


class LoudDpo(Dpo):
    """What it watches has a gradient, as nobody promised that it has none."""

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        terms = super().loss(models, batch)
        return {**terms, "accuracy": 5 * terms["preference"] + terms["sft"]}


def test_the_engines_loop_does_not_learn_from_what_is_watched(tmp_path: Path) -> None:
    seen = []
    for objective in (Dpo(), LoudDpo()):
        models = models_of(speaker())
        examples = annotated(objective, models, pairs(objective))
        seen.append(train(objective, models, examples, tmp_path / type(objective).__name__))
    assert seen[0] == seen[1]


def test_an_empty_batch_of_pairs_weighs_nothing() -> None:
    batch = collate([empty_like(pairs(Dpo())[0])])
    assert set(Dpo().weights(batch).values()) == {0.0}
    assert len(batch.origins) == 1, "so examples are counted by the rows of a table"


# Distillation: a companion, and what it says as a column [R, K].


class Distill(Base):
    """Cross entropy to a teacher's K most likely tokens (Hinton et al. 2015, top-K only)."""

    records = (Preference,)
    heads = (Head("lm"),)
    companions: Mapping[str, str] = {"teacher": "builtin:large"}
    k = 7

    def encode(self, record: Record, codec: Codec) -> Example:
        assert isinstance(record, Preference)
        answer = spoken(codec, record.prompt, record.chosen)
        segments, table = branching(codec.prompt(record.prompt), [answer])
        return Example(segments, {"lm": table}, record.origin)

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        teacher = models.companions["teacher"]
        with torch.no_grad():
            hidden = teacher.hidden(batch)[batch.targets["lm"]["position"]]
            top = teacher.logits(hidden).log_softmax(-1).topk(self.k, dim=-1)
        return {"lm": {"teacher_token": top.indices, "teacher_logprob": top.values}}

    def weights(self, batch: Batch) -> dict[str, float]:
        return {"distillation": float(batch.targets["lm"]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        table = batch.targets["lm"]
        hidden = models.policy.hidden(batch)[table["position"]]
        student = models.policy.logits(hidden).log_softmax(-1).gather(1, table["teacher_token"])
        cross = -(table["teacher_logprob"].exp() * student).sum(-1)
        return {"distillation": (cross * table["weight"]).sum()}


def taught(method: str = "full") -> tuple[Distill, Any, CausalModel, list[Example]]:
    teacher = CausalModel(speaker(hidden_size=48, num_hidden_layers=3))
    teacher.module.eval().requires_grad_(False)
    models = models_of(speaker(), method, {"teacher": teacher})
    codec = builders.codec()
    examples = [Distill().encode(record, codec) for record in preferences()]
    return Distill(), models, teacher, annotated(Distill(), models, examples)


def test_a_teachers_top_tokens_are_columns_of_their_own_width(method: str) -> None:
    objective, models, teacher, examples = taught(method)
    batch = collate(examples)
    table = batch.targets["lm"]
    assert table["teacher_token"].shape == (rows(batch, "lm"), objective.k)
    assert table["teacher_token"].dtype == torch.int64
    live = teacher.logits(teacher.hidden(batch)[table["position"]]).log_softmax(-1)
    picked = live.gather(1, table["teacher_token"])
    assert builders.gap(picked, table["teacher_logprob"]) < 1e-10
    assert builders.gap(picked[:, 0], live.max(-1).values) < 1e-10
    gradients, means = step(objective, models, [examples[:2], [], examples[2:]])
    whole, same = step(objective, models, [examples])
    assert builders.gap(gradients, whole) < 1e-10
    assert means == pytest.approx(same)
    assert all(p.grad is None for p in teacher.module.parameters())


def test_the_engines_loop_learns_from_a_teacher(tmp_path: Path) -> None:
    objective, models, _, examples = taught()
    seen = train(objective, models, examples, tmp_path)
    assert seen[-1]["distillation"] < seen[0]["distillation"]


# KTO: a figure of the whole step, over pairs that change from epoch to epoch.


class Kto(Base):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024).

    ``1 - sigmoid(+-beta (r - z))`` with ``r`` the answer's log-ratio to the reference and ``z`` the
    step's mean log-ratio of mismatched pairs, not below 0, without gradient.
    """

    records = (Thumb,)
    needs_reference = True
    heads = (Head("lm"),)

    def encode(self, record: Record, codec: Codec) -> Example:
        assert isinstance(record, Thumb)
        answer = spoken(codec, record.prompt, record.answer)
        segments, table = branching(codec.prompt(record.prompt), [answer])
        table["foreign"] = np.zeros(len(table["token"]), dtype=bool)
        thumb = {"good": np.array([record.good])}
        return Example(segments, {"lm": table, "thumb": thumb}, record.origin)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Every prompt gets another one's answer as a second child."""
        order = rng.permutation(len(examples))
        other = {int(a): int(b) for a, b in zip(order, np.roll(order, 1), strict=True)}
        return [self.mismatched(e, examples[other[i]]) for i, e in enumerate(examples)]

    def mismatched(self, example: Example, other: Example) -> Example:
        prompt, own, foreign = example.segments[0], example.segments[1], other.segments[1]
        segments, table = branching(prompt.tokens, [own.tokens, foreign.tokens])
        table["foreign"] = table["segment"] == 2
        return Example(segments, {**example.targets, "lm": table}, example.origin)

    def statistics(self, models: Models, batches: Sequence[Batch]) -> dict[str, Tensor]:
        kl, pairs = torch.zeros((), dtype=torch.float64), 0
        with torch.no_grad():
            for batch in batches:
                kl += (self.ratios(models, batch) * batch.targets["lm"]["foreign"]).sum()
                pairs += rows(batch, "thumb")
        return {"kl": kl, "pairs": torch.tensor(float(pairs))}

    def weights(self, batch: Batch) -> dict[str, float]:
        return {"kto": float(rows(batch, "thumb"))}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        table, thumb = batch.targets["lm"], batch.targets["thumb"]
        own = self.ratios(models, batch) * ~table["foreign"]
        sums = own.new_zeros(len(batch.origins)).index_add(0, table["example"], own)
        sign = torch.where(thumb["good"], 1.0, -1.0).to(own.dtype)
        value = self.config.beta * sign * (sums[thumb["example"]] - self.baseline(batch))
        return {"kto": (1 - value.sigmoid()).sum()}

    def baseline(self, batch: Batch) -> Tensor:
        figures = batch.step
        return (figures["kl"] / figures["pairs"]).clamp(min=0)

    def ratios(self, models: Models, batch: Batch) -> Tensor:
        policy, _ = models.policy.logprobs(batch, models.policy.hidden(batch))
        with models.reference() as reference:
            old, _ = reference.logprobs(batch, reference.hidden(batch))
        return policy - old


def thumbs() -> list[Example]:
    said, codec = builders.SENTENCES, builders.codec()
    made = [
        Thumb(origin(i + 1), (Turn("user", f"of {i}"),), (Turn("assistant", said[i]),), i % 3 > 0)
        for i in range(5)
    ]
    return list(Kto().arrange([Kto().encode(t, codec) for t in made], np.random.default_rng(3)))


class Ascending(Kto):
    """With a baseline that is surely above 0."""

    def baseline(self, batch: Batch) -> Tensor:
        return (batch.step["kl"] / batch.step["pairs"]).abs()


def kto_by_hand(models: Any, examples: Sequence[Example], beta: float) -> Means:
    """The same from plain sequences: each answer alone behind its prompt."""

    def ratio(example: Example, child: int) -> Tensor:
        path = np.concatenate([example.segments[0].tokens, example.segments[child].tokens])
        ids, size = torch.tensor(path)[None], len(example.segments[child].tokens)

        def total() -> Tensor:
            models.policy.base.set_attn_implementation("sdpa")
            logits = models.policy.module(input_ids=ids).logits[0, -size - 1 : -1]
            return logits.log_softmax(-1).gather(1, ids[0, -size:, None]).sum()

        policy = total()
        with models.reference():
            old = total()
        return policy - old

    kl = torch.stack([ratio(e, 2) for e in examples]).mean().abs().detach()
    signs = [1.0 if e.targets["thumb"]["good"][0] else -1.0 for e in examples]
    values = [
        1 - (beta * s * (ratio(e, 1) - kl)).sigmoid() for s, e in zip(signs, examples, strict=True)
    ]
    loss = torch.stack(values).mean()
    models.policy.module.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {"kto": float(loss.detach())}


def test_a_figure_of_the_whole_step_is_every_micro_batchs(method: str) -> None:
    objective, models = Ascending(), models_of(speaker(), method)
    nudge(models.policy.module, 0.05)
    examples = thumbs()
    whole = step(objective, models, [examples])
    divided = step(objective, models, [examples[:1], [], examples[1:3], examples[3:]])
    assert builders.gap(whole[0], divided[0]) < 1e-10
    assert whole[1] == pytest.approx(divided[1], abs=1e-12)
    alone = [step(objective, models, [[example]])[1]["kto"] for example in examples]
    assert abs(sum(alone) / len(alone) - whole[1]["kto"]) > 1e-6, "the baseline couples the step"


@ways
def test_the_step_statistic_is_the_papers(architecture: str, how: str, tolerance: float) -> None:
    objective, models = Ascending(), models_of(speaker(architecture), how)
    nudge(models.policy.module, 0.05)
    examples = thumbs()
    gradients, means = step(objective, models, [examples[:2], examples[2:]])
    by_hand = kto_by_hand(models, examples, objective.config.beta)
    assert means == pytest.approx(by_hand, abs=tolerance)
    assert builders.gap(gradients, builders.gradients(models.policy.module)) < tolerance


def test_mismatched_pairs_change_with_the_generator_alone() -> None:
    codec = builders.codec()
    made = [Thumb(origin(i), (Turn("user", "x"),), (Turn("assistant", s),), True)
            for i, s in enumerate(builders.SENTENCES)]  # fmt: skip
    examples = [Kto().encode(thumb, codec) for thumb in made]

    def foreign(seed: int) -> list[list[int]]:
        arranged = Kto().arrange(examples, np.random.default_rng(seed))
        assert all(len(e.segments) == 3 for e in arranged)
        return [e.segments[2].tokens.tolist() for e in arranged]

    assert foreign(1) == foreign(1)
    assert foreign(1) != foreign(2)
    own = [e.segments[1].tokens.tolist() for e in examples]
    assert all(a != b for a, b in zip(foreign(1), own, strict=True))


# What the engine finds out by asking.


def test_optional_promises_are_found_by_asking() -> None:
    promised = {
        protocol: [o.__name__ for o in (Dpo, Distill, Kto) if isinstance(o(), protocol)]
        for protocol in (Objective, FrozenColumns, Accompanied, Watching, StepStatistics)
    }
    assert promised == {
        Objective: ["Dpo", "Distill", "Kto"],
        FrozenColumns: ["Dpo", "Distill"],
        Accompanied: ["Distill"],
        Watching: ["Dpo"],
        StepStatistics: ["Kto"],
    }


def test_batches_of_unlike_tables_are_a_mistake() -> None:
    def without(table: str) -> Iterator[Example]:
        first, second = pairs(Dpo(), 2)
        targets = {name: t for name, t in second.targets.items() if name != table}
        yield from (first, replace(second, targets=targets))

    with pytest.raises(AssertionError, match="tables that differ"):
        collate(list(without("pair")))
