"""Every objective with every method: law 8, its statistics of weights, and what it promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import classifiers
import encoders
import numpy as np
import pairs
import pytest
import torch
from stand_in import annotated, informed, nudge
from torch import nn

from luthier.core import kinds
from luthier.core.contracts import (
    Accompanied,
    FrozenColumns,
    Method,
    Objective,
    OnlineObjective,
    Settling,
    Watching,
)
from luthier.core.contracts_data import Classed
from luthier.core.contracts_scores import Scoring
from luthier.core.contracts_tasks import BY_TASK, Tasked
from luthier.core.contracts_text import Tokenized
from luthier.core.contracts_weights import Prefixed
from luthier.core.errors import UserError
from luthier.core.marks import with_task
from luthier.core.recipe import TrainingSpec
from luthier.core.records import (
    Answer,
    Conversation,
    ConversationTree,
    Example,
    Labelled,
    Node,
    Origin,
    Pair,
    Preference,
    Prompt,
    Ranking,
    Record,
    SourceTarget,
    Tagged,
    Text,
    Thumb,
    Turn,
)
from luthier.data.batching import collate, empty_like
from luthier.data.length import POLICIES
from luthier.data.template import TokenizerCodec
from luthier.engine.optim import make_optimizer
from luthier.models import valued
from luthier.models.encoder_decoder import language_model
from luthier.models.headed import HeadedTrunk
from luthier.models.run_models import RunModels
from luthier.models.worlds import WORLDS
from luthier.ops.anatomy import unwrapped

OBJECTIVES = kinds.names("objectives")
#: Each objective, and behind an @ once more with an encoder-decoder where it learns from sources.
CASES = [
    *OBJECTIVES,
    *(
        f"{kind}@pairs"
        for kind in OBJECTIVES
        if hasattr(kinds.module("objectives", kind).Objective, "bounds")
    ),
]
METHODS = kinds.names("methods")


def build(folder: str, kind: str, **settings: Any) -> Any:
    kind, _, world = kind.partition("@")
    if folder == "objectives":
        settings = {**repeated(kind), **settings}
    made = kinds.build(
        folder, kinds.config(folder, {**builders.settings(folder, kind), **settings})
    )
    if world:
        made.world = world
    if isinstance(made, Settling):
        made = made.settled([each for number in range(6) for each in records_of(made, number)], ())
    return made.with_codec(codec()) if isinstance(made, Tokenized) else made


def repeated(kind: str) -> dict[str, Any]:
    """Settings under which a frozen rollout's loss falls with every step, and not at once as far
    as a clip lets it."""
    wanted = {"mini_batches": 2, "clip": 9.0, "value_clip": 9.0}
    fields = kinds.module("objectives", kind).Config.model_fields
    return {name: value for name, value in wanted.items() if name in fields}


def codec() -> Any:
    """One that all objectives can do with: its tokenizer has a mask."""
    tokenizer = builders.tokenizer()
    tokenizer.mask_token = "<|tool|>"
    return TokenizerCodec(tokenizer, max_length=128)


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
        Ranking: lambda: Ranking(origin, prompt, (*answers, (Turn("assistant", said[5:]),))),
        Thumb: lambda: Thumb(origin, prompt, answers[0], number % 2 == 0),
        Prompt: lambda: Prompt(origin, prompt),
        Labelled: lambda: Labelled(origin, said, classifiers.NAMES[number % 3]),
        Tagged: lambda: encoders.sentences(number + 1)[number],
        Pair: lambda: Pair(
            origin, f"tell me of {other[:12]}", said, (other, other[:9])[: number % 3]
        ),
        SourceTarget: lambda: SourceTarget(origin, f"what of {number}?", said),
    }
    return made[kind]()  # type: ignore[no-any-return]


def records_of(objective: Any, number: int) -> list[Record]:
    """A record that an objective eats; of several tasks one for each."""
    if not isinstance(objective, Tasked):
        return [record_of(objective.records[0], number)]
    return [
        among(record, name)
        for name, task in objective.tasks.items()
        for record in records_of(task, number)
    ]


def among(record: Record, task: str) -> Record:
    """A record that says its task."""
    origin = replace(record.origin, source=with_task(record.origin.source, task))
    return replace(record, origin=origin)


def encoded(objective: Objective, count: int = 4) -> list[Example]:
    """Every kind of record, with the columns that stay as they are."""
    if isinstance(objective, OnlineObjective):
        return rollout(objective, count)
    read = pairs.codec() if hasattr(objective, "world") else codec()
    if isinstance(objective, Tasked):
        some = [each for number in range(count) for each in records_of(objective, number)]
    else:
        some = [record_of(kind, n) for kind in objective.records for n in range(count)]
    made = [objective.encode(record, read) for record in some]
    if not isinstance(objective, FrozenColumns):
        return made
    method = build("methods", "full")
    module = method.prepare(model(objective))
    method.keep_start(module)
    return annotated(
        objective, RunModels(seen(objective, module), method, companions(objective)), made
    )


def rollout(objective: OnlineObjective, count: int) -> list[Example]:
    """Prompts with scripted answers, and everything that is fixed once they are sampled."""
    asked = [record_of(Prompt, number) for number in range(count)]
    generator = Scripted(len(builders.tokenizer()), codec().end_tokens[0])
    made = objective.collect(asked, codec(), generator, {"length": Length()}, seed=3)
    if isinstance(objective, FrozenColumns):
        method = build("methods", "full")
        module = method.prepare(model(objective))
        method.keep_start(module)
        nudge(module, 0.05)
        made = annotated(objective, RunModels(seen(objective, module), method), made)
    credited, _ = objective.credit(made, {})
    return list(credited)


class Length:
    """Rewards answers of about twelve characters, none of them quite alike."""

    slow = False

    def score(self, prompts: Any, answers: Any) -> list[float]:
        return [-abs(len(answer) - 12.3) / 10 for answer in answers]


class Scripted:
    """A generator without a model: answers of random tokens, drawn by the seed."""

    def __init__(self, vocabulary: int, end: int) -> None:
        self.vocabulary, self.end = vocabulary, end

    def sample(self, prompts: Any, answers: int, seed: int, **settings: Any) -> Any:
        rng = np.random.default_rng(seed)
        groups = []
        for _ in prompts:
            group = []
            for _ in range(answers):
                said = rng.integers(8, self.vocabulary, int(rng.integers(1, 8))).tolist()
                ended = bool(rng.random() < 0.7)
                tokens = tuple([*said, self.end] if ended else said)
                group.append(Answer(tokens, ended, (-5.0,) * len(tokens)))
            groups.append(group)
        return groups


def companions(objective: Objective) -> dict[str, Any]:
    """Models that the objective stands beside; they know something else than the policy."""
    named = objective.companions if isinstance(objective, Accompanied) else {}
    made = {}
    for role in named:
        module = model(objective)
        nudge(module, 1.0)
        made[role] = seen(objective, module.eval().requires_grad_(False))
    return made


def model(objective: Objective) -> nn.Module:
    """A model with the head that an objective reads."""
    if hasattr(objective, "world"):
        both: nn.Module = pairs.model("t5")
        return both
    makers: dict[str, Any] = {
        "lm": lambda: builders.talking(len(builders.tokenizer()), attention_dropout=0.0),
        "classification": lambda: classifiers.own(
            "llama", classes=objective.heads[0].classes, max_position_embeddings=128
        ),
        "token_classification": lambda: encoders.tagging("llama"),
        "masked_lm": lambda: encoders.guessing("bert"),
        "several": lambda: encoders.several("bert", objective.heads[0].parts),
        "embedding": lambda: encoders.embedding("bert"),
    }
    module: nn.Module = makers[objective.heads[0].kind]()
    return module


def seen(objective: Objective, module: nn.Module) -> Any:
    """The module as objectives see it."""
    kind = objective.heads[0].kind
    if len(objective.heads) > 1:  # the value head comes once the method has prepared the model
        known = hasattr(unwrapped(module), valued.NAME)
        return valued.ValuedModel(module) if known else valued.attach(module)
    return language_model(module) if kind == "lm" else WORLDS[kind].model(module)


def together(objective: Objective, module: nn.Module, examples: list[Example]) -> Any:
    """One batch, as the model wants it."""
    return collate(examples, **seen(objective, module).layout)


def logits(objective: Objective, module: nn.Module, examples: list[Example]) -> torch.Tensor:
    policy, batch = seen(objective, module), together(objective, module, examples)
    module.eval()
    with torch.no_grad():
        if isinstance(objective, Tasked):
            made = []
            for name, head in policy.heads(batch).items():
                table = batch.targets[objective.table(name, head.head.kind)]
                rows = head.pooled(batch, head.hidden(batch), next(iter(table.values())))
                made.append(head.outputs(head.head.kind, rows).flatten())
            return torch.cat(made)
        hidden = policy.hidden(batch)
        if not isinstance(policy, HeadedTrunk):
            return torch.as_tensor(policy.logits(hidden))
        kind = objective.heads[0].kind
        table = batch.targets[kind]
        rows = policy.pooled(batch, hidden, table.get("segment", table.get("position")))
        return torch.as_tensor(policy.outputs(kind, rows))


def means(objective: Objective, models: RunModels, examples: list[Example]) -> torch.Tensor:
    """The step's loss: each term divided once by its weight, as the engine does."""
    batch = together(objective, models.policy.module, examples)
    weights, terms = objective.weights(batch), objective.loss(models, batch)
    assert set(weights) == set(terms)
    for name, term in terms.items():
        assert term.shape == (), name
    watched = objective.watched if isinstance(objective, Watching) else frozenset()
    return torch.stack([terms[n] / weights[n] for n in terms if n not in watched]).sum()


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
    if hasattr(objective, "world") and isinstance(method, Prefixed):
        return  # refused once the model is known
    examples = encoded(objective)
    try:
        module = method.prepare(model(objective)).train()
    except UserError as refused:  # where only the model shows it
        if refused.faults[0].code != "architecture" or not refused.faults[0].cure:
            raise
        return
    if objective.needs_reference:
        method.keep_start(module)
    models = RunModels(seen(objective, module), method)
    alone = objective.heads[0].classes == 1  # an output without another to lean on overshoots
    rate = (4 if alone else 20) * method.default_rate
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
    loaded = build("methods", way).load(model(objective), tmp_path)
    assert torch.equal(logits(objective, loaded, examples), logits(objective, module, examples))


@pytest.mark.parametrize("kind", CASES)
def test_weights_are_known_before_the_forward_pass_and_add_up(kind: str) -> None:
    objective = build("objectives", kind)
    examples = encoded(objective)
    whole = objective.weights(collate(examples))
    apart = [objective.weights(collate([e])) for e in examples]
    assert all(isinstance(v, float) and v > 0 for v in whole.values())
    for name, weight in whole.items():
        assert weight == pytest.approx(sum(w[name] for w in apart))


@pytest.mark.parametrize("kind", CASES)
def test_losses_are_sums_that_add_up(kind: str) -> None:
    objective, method = build("objectives", kind), build("methods", "full")
    module = method.prepare(model(objective).double()).eval()
    method.keep_start(module)
    models = RunModels(seen(objective, module), method)
    examples = encoded(objective)
    with torch.no_grad():
        examples = list(objective.arrange(examples, np.random.default_rng(0)))
        batch = together(objective, module, examples)
        [informed_batch] = informed(objective, models, [batch], len(examples))
        whole = objective.loss(models, informed_batch)
        alone = [together(objective, module, [e]) for e in examples]
        batches = informed(objective, models, alone, len(examples))
        apart = [objective.loss(models, batch) for batch in batches]
    for name, term in whole.items():
        assert float(term) == pytest.approx(sum(float(t[name]) for t in apart), rel=1e-9)


@pytest.mark.parametrize("kind", CASES)
def test_a_rank_without_work_adds_nothing_and_touches_every_parameter(kind: str) -> None:
    objective, method = build("objectives", kind), build("methods", "full")
    module = method.prepare(model(objective))
    method.keep_start(module)
    models = RunModels(seen(objective, module), method)
    examples = encoded(objective)
    batch = together(objective, module, [empty_like(examples[0])])
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
    examples = encoded(objective)
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
    assert objective.overlong in (*POLICIES, BY_TASK)
    assert isinstance(objective.needs_reference, bool)
    assert set(objective.metrics) <= set(kinds.names("metrics"))
    if isinstance(objective, Watching):
        weights = objective.weights(collate(encoded(objective)))
        assert objective.watched < set(weights), "what is watched is a term, and not all are"


@pytest.mark.parametrize("kind", CASES)
def test_what_answers_are_worth_is_a_number_for_each_of_them(kind: str) -> None:
    objective = build("objectives", kind)
    if not isinstance(objective, Scoring):
        return
    examples = encoded(objective)
    module = model(objective).eval()
    batch = together(objective, module, examples)
    models = RunModels(seen(objective, module), build("methods", "full"))
    with torch.no_grad():
        found = objective.scores(models, batch)
    table = batch.targets[objective.table]
    assert found.shape == table["segment"].shape == table["place"].shape
    for number, example in enumerate(examples):
        places = table["place"][table["example"] == number].tolist()
        assert places == list(range(len(places))), example.origin


@pytest.mark.parametrize("kind", CASES)
def test_classes_to_balance_are_a_number_an_example(kind: str) -> None:
    objective = build("objectives", kind)
    if not isinstance(objective, Classed) or objective.class_column is None:
        return
    head, column = objective.class_column
    for example in encoded(objective):
        found = example.targets[head][column]
        assert found.shape == (1,)
        assert objective.class_names[int(found[0])]


@pytest.mark.parametrize("kind", CASES)
def test_label_smoothing_counts_learned_tokens_only(kind: str) -> None:
    if "label_smoothing" not in type(build("objectives", kind).config).model_fields:
        return
    objective = build("objectives", kind, label_smoothing=0.1)
    if objective.heads[0].kind != "lm" or isinstance(objective, Scoring):
        return  # a classifier's has a test of its own, and so has that of preferences
    method: Method = build("methods", "full")
    module = method.prepare(model(objective))
    models = RunModels(seen(objective, module), method)
    examples = encoded(objective)
    batch = collate(examples)
    table = batch.targets["lm"]
    with torch.no_grad():
        scores = models.policy.logits(models.policy.hidden(batch))
        expected = torch.nn.functional.cross_entropy(
            scores[table["position"]], table["token"], reduction="sum", label_smoothing=0.1
        )
        found = objective.loss(models, batch)["nll"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
