"""Every objective with every method: law 8, its statistics of weights, and what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import classifiers
import numpy as np
import pairs
import pytest
import torch
from stand_in import annotated, nudge
from torch import nn

from luthier.core import kinds
from luthier.core.contracts import Accompanied, FrozenColumns, Method, Objective, Settling
from luthier.core.recipe import TrainingSpec
from luthier.core.records import (
    Conversation,
    ConversationTree,
    Example,
    Labelled,
    Node,
    Origin,
    Preference,
    Prompt,
    Record,
    SourceTarget,
    Text,
    Thumb,
    Turn,
)
from luthier.data.batching import collate, empty_like
from luthier.data.length import POLICIES
from luthier.engine.optim import make_optimizer
from luthier.methods._snapshot import head_names
from luthier.models.encoder_decoder import language_model
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels

OBJECTIVES = kinds.names("objectives")
#: Each objective, and behind an @ once more with an encoder-decoder where it learns from pairs.
CASES = [
    *OBJECTIVES,
    *(
        f"{kind}@pairs"
        for kind in OBJECTIVES
        if SourceTarget in kinds.module("objectives", kind).Objective.records
    ),
]
METHODS = kinds.names("methods")


def build(folder: str, kind: str, **settings: Any) -> Any:
    kind = kind.partition("@")[0]
    made = kinds.build(
        folder, kinds.config(folder, {**builders.settings(folder, kind), **settings})
    )
    if isinstance(made, Settling):
        return made.settled([record_of(Labelled, number) for number in range(6)], ())
    return made


def record_of(kind: type[Record], number: int) -> Record:
    """A record of any kind that an objective may eat."""
    origin = Origin("made.jsonl", number + 1)
    said, other = (builders.SENTENCES[(number + i) % 6] for i in range(2))
    prompt = (Turn("user", f"tell me of number {number}"),)
    answers = [(Turn("assistant", text),) for text in (said, other)]
    made: dict[type[Record], Any] = {
        Text: lambda: Text(origin, said),
        Conversation: lambda: Conversation(origin, (*prompt, *answers[0])),
        ConversationTree: lambda: ConversationTree(
            origin, (Node(prompt[0]), *(Node(answer[0], 0) for answer in answers))
        ),
        Preference: lambda: Preference(origin, prompt, *answers),
        Thumb: lambda: Thumb(origin, prompt, answers[0], number % 2 == 0),
        Prompt: lambda: Prompt(origin, prompt),
        Labelled: lambda: Labelled(origin, said, classifiers.NAMES[number % 3]),
        SourceTarget: lambda: SourceTarget(origin, said, pairs.TARGETS[number % 6]),
    }
    return made[kind]()  # type: ignore[no-any-return]


def encoded(objective: Objective, case: str, count: int = 4) -> list[Example]:
    """Every kind of record, with the columns that stay as they are."""
    codec = pairs.codec() if case.endswith("@pairs") else builders.codec()
    made = [
        objective.encode(record_of(kind, number), codec)
        for kind in objective.records
        for number in range(count)
    ]
    if not isinstance(objective, FrozenColumns):
        return made
    method = build("methods", "full")
    module = method.prepare(model(objective, case))
    method.keep_start(module)
    beside = companions(objective, case)
    return annotated(objective, RunModels(seen(module), method, beside), made)


def companions(objective: Objective, case: str) -> dict[str, Any]:
    """Models that the objective stands beside; they know something else than the policy."""
    named = objective.companions if isinstance(objective, Accompanied) else {}
    made = {}
    for role in named:
        module = model(objective, case)
        nudge(module, 1.0)
        made[role] = seen(module.eval().requires_grad_(False))
    return made


def model(objective: Objective, case: str) -> nn.Module:
    """A decoder with the heads that an objective reads, or an encoder-decoder."""
    if case.endswith("@pairs"):
        both: nn.Module = pairs.model("t5")
        return both
    if any(head.kind == "classification" for head in objective.heads):
        classifier: nn.Module = classifiers.own("llama")
        return classifier
    module: nn.Module = builders.talking(len(builders.tokenizer()), attention_dropout=0.0)
    return module


def seen(module: nn.Module) -> Any:
    """The module as objectives see it."""
    return ClassifierModel(module) if head_names(module) else language_model(module)


def logits(module: nn.Module, examples: list[Example]) -> torch.Tensor:
    policy, batch = seen(module), collate(examples)
    module.eval()
    with torch.no_grad():
        hidden = policy.hidden(batch)
        if isinstance(policy, CausalModel):
            return policy.logits(hidden)
        rows = policy.pooled(batch, hidden, batch.targets["classification"]["segment"])
        return torch.as_tensor(policy.outputs("classification", rows))


def means(objective: Objective, models: RunModels, examples: list[Example]) -> torch.Tensor:
    """The step's loss: each term divided once by its weight, as the engine does."""
    batch = collate(examples)
    weights, terms = objective.weights(batch), objective.loss(models, batch)
    assert set(weights) == set(terms)
    for name, term in terms.items():
        assert term.shape == (), name
    return torch.stack([terms[n] / weights[n] for n in terms]).sum()


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("way", METHODS)
def test_law_8_two_steps_lower_the_loss_and_the_result_comes_back(
    kind: str, way: str, tmp_path: Path
) -> None:
    objective, method = build("objectives", kind), build("methods", way)
    refusal = method.supports(objective)
    if refusal is not None:
        assert refusal.strip()
        return
    examples = encoded(objective, kind)
    module = method.prepare(model(objective, kind)).train()
    if objective.needs_reference:
        method.keep_start(module)
    models = RunModels(seen(module), method)
    rate = 20 * method.default_rate
    optimizer = make_optimizer(TrainingSpec(), method.param_groups(module), rate)
    losses = []
    for _ in range(3):
        loss = means(objective, models, examples)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]
    method.save(module, tmp_path)
    loaded = build("methods", way).load(model(objective, kind), tmp_path)
    assert torch.equal(logits(loaded, examples), logits(module, examples))


@pytest.mark.parametrize("kind", CASES)
def test_weights_are_known_before_the_forward_pass_and_add_up(kind: str) -> None:
    objective = build("objectives", kind)
    examples = encoded(objective, kind)
    whole = objective.weights(collate(examples))
    apart = [objective.weights(collate([e])) for e in examples]
    assert all(isinstance(v, float) and v > 0 for v in whole.values())
    for name, weight in whole.items():
        assert weight == pytest.approx(sum(w[name] for w in apart))


@pytest.mark.parametrize("kind", CASES)
def test_losses_are_sums_that_add_up(kind: str) -> None:
    objective, method = build("objectives", kind), build("methods", "full")
    module = method.prepare(model(objective, kind).double()).eval()
    method.keep_start(module)
    models = RunModels(seen(module), method)
    examples = encoded(objective, kind)
    with torch.no_grad():
        whole = objective.loss(models, collate(examples))
        apart = [objective.loss(models, collate([e])) for e in examples]
    for name, term in whole.items():
        assert float(term) == pytest.approx(sum(float(t[name]) for t in apart), rel=1e-9)


@pytest.mark.parametrize("kind", CASES)
def test_a_rank_without_work_adds_nothing_and_touches_every_parameter(kind: str) -> None:
    objective, method = build("objectives", kind), build("methods", "full")
    module = method.prepare(model(objective, kind))
    method.keep_start(module)
    models = RunModels(seen(module), method)
    examples = encoded(objective, kind)
    batch = collate([empty_like(examples[0])])
    assert objective.weights(batch) == dict.fromkeys(objective.weights(collate(examples)), 0.0)
    terms = objective.loss(models, batch)
    assert all(term.item() == 0.0 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("kind", CASES)
def test_what_changes_with_the_epoch_depends_on_the_generator_alone(kind: str) -> None:
    objective = build("objectives", kind)
    examples = encoded(objective, kind)
    torch.manual_seed(0)
    first = objective.arrange(examples, np.random.default_rng(3))
    torch.manual_seed(1)
    second = objective.arrange(examples, np.random.default_rng(3))
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.origin == b.origin
        for head, table in a.targets.items():
            for name, column in table.items():
                assert np.array_equal(column, b.targets[head][name])


@pytest.mark.parametrize("kind", CASES)
def test_what_it_promises(kind: str) -> None:
    objective = build("objectives", kind)
    assert isinstance(objective, Objective)
    assert objective.records
    assert objective.heads
    assert objective.overlong in POLICIES
    assert isinstance(objective.needs_reference, bool)
    assert set(objective.metrics) <= set(kinds.names("metrics"))


@pytest.mark.parametrize("kind", CASES)
def test_label_smoothing_counts_learned_tokens_only(kind: str) -> None:
    if "label_smoothing" not in type(build("objectives", kind).config).model_fields:
        return
    objective = build("objectives", kind, label_smoothing=0.1)
    if objective.heads[0].kind != "lm":
        return  # a classifier's has a test of its own
    method: Method = build("methods", "full")
    module = method.prepare(model(objective, kind))
    models = RunModels(seen(module), method)
    examples = encoded(objective, kind)
    batch = collate(examples)
    table = batch.targets["lm"]
    with torch.no_grad():
        scores = models.policy.logits(models.policy.hidden(batch))
        expected = torch.nn.functional.cross_entropy(
            scores[table["position"]], table["token"], reduction="sum", label_smoothing=0.1
        )
        found = objective.loss(models, batch)["nll"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
