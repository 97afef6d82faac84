"""What the contract asks of an engine, in its plainest form, around the real collate and backend.

The tests of contracts hold throwaway objectives to this; the engine's own loop is held to it where
it already does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import builders
import numpy as np
import torch
from torch import Tensor, nn

from luthier.core import kinds
from luthier.core.contracts import (
    FrozenColumns,
    KindConfig,
    LanguageModel,
    Models,
    Objective,
    StepStatistics,
    Watching,
)
from luthier.core.recipe import TrainingSpec
from luthier.core.records import Batch, Example, Origin, Segment
from luthier.core.rundir import RunDir
from luthier.data.batching import collate, empty_like, micro_batches
from luthier.data.store import ExampleStore
from luthier.engine.backend import Backend
from luthier.engine.checkpoint import State
from luthier.engine.loop import Data, Loop
from luthier.engine.watch import Stop
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels

Gradients = dict[str, Tensor]
Means = dict[str, float]


class Config(KindConfig):
    """Settings of the throwaway objectives."""

    kind: str = "throwaway"
    beta: float = 0.3


class Base:
    """What every throwaway objective says alike."""

    metrics: tuple[str, ...] = ()
    overlong = "refuse"
    needs_reference = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        return examples


def branching(
    prompt: Sequence[int], answers: Sequence[Sequence[int]], line: int = 1
) -> tuple[tuple[Segment, ...], dict[str, Any]]:
    """A prompt with answers as children, and their ``lm`` rows with the segment of each.

    The prompt's last token predicts the first token of every answer.
    """
    segments = [Segment(np.asarray(prompt, dtype=np.int64))]
    position: list[int] = []
    at = len(prompt)
    for answer in answers:
        segments.append(Segment(np.asarray(answer, dtype=np.int64), parent=0))
        position += [len(prompt) - 1, *range(at, at + len(answer) - 1)]
        at += len(answer)
    token = [t for answer in answers for t in answer]
    owner = [i for i, answer in enumerate(answers, start=1) for _ in answer]
    return tuple(segments), {
        "position": np.array(position, dtype=np.int64),
        "token": np.array(token, dtype=np.int64),
        "weight": np.ones(len(token), dtype=np.float32),
        "segment": np.array(owner, dtype=np.int64),
    }


def apart(example: Example) -> Example:
    """The same example with every answer behind a prompt of its own, nothing shared."""
    prompt = example.segments[0].tokens
    segments, places, owners = [], {}, {}
    at, old = 0, len(prompt)
    for number, answer in enumerate(example.segments[1:], start=1):
        segments.append(Segment(np.concatenate([prompt, answer.tokens])))
        for i in range(len(prompt)):
            places[number, i] = at + i
        for i in range(len(answer.tokens)):
            places[number, old + i] = at + len(prompt) + i
        owners[number] = number - 1
        at += len(prompt) + len(answer.tokens)
        old += len(answer.tokens)
    tables = {}
    for head, table in example.targets.items():
        moved = dict(table)
        if "segment" in table:
            moved["segment"] = np.array([owners[int(s)] for s in table["segment"]], dtype=np.int64)
            if "position" in table:
                pairs = zip(table["segment"], table["position"], strict=True)
                moved["position"] = np.array([places[int(s), int(p)] for s, p in pairs])
        tables[head] = moved
    return Example(tuple(segments), tables, example.origin)


def models_of(
    module: nn.Module, method: str = "full", companions: Mapping[str, LanguageModel] | None = None
) -> RunModels:
    """The models of a run at its step 0."""
    made = kinds.build("methods", kinds.config("methods", method))
    prepared = made.prepare(module)
    made.keep_start(prepared)
    return RunModels(CausalModel(prepared), made, companions)


def nudge(module: nn.Module, size: float = 0.02) -> None:
    """Moves what is trained, as steps would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(size * noise)


def annotated(
    objective: Any, models: Models, examples: Sequence[Example], sizes: Sequence[int] = (2, 99)
) -> list[Example]:
    """Examples with the columns of :class:`FrozenColumns`, kept and read back as the cache does."""
    assert isinstance(objective, FrozenColumns)
    made: list[Example] = []
    rest = list(examples)
    for size in sizes:
        chosen, rest = rest[:size], rest[size:]
        if not chosen:
            break
        batch = collate(chosen)
        found = objective.columns(models, batch)
        for number, example in enumerate(chosen):
            tables = {head: dict(table) for head, table in example.targets.items()}
            for head, columns in found.items():
                mine = batch.targets[head]["example"] == number
                for name, column in columns.items():
                    assert not column.requires_grad
                    tables[head][name] = column[mine].numpy()
            made.append(Example(example.segments, tables, example.origin))
    return list(ExampleStore.build(made))


def step(
    objective: Any, models: RunModels, parts: Sequence[Sequence[Example]]
) -> tuple[Gradients, Means]:
    """Gradients and each term's mean of one step, taken in these micro-batches."""
    assert isinstance(objective, Objective)
    backend = Backend("cpu")
    first = next(example for part in parts for example in part)
    layout = getattr(models.policy, "layout", {})
    batches = [collate(part or [empty_like(first)], **layout) for part in parts]
    batches = informed(objective, models, batches, sum(len(part) for part in parts))
    watched = objective.watched if isinstance(objective, Watching) else frozenset()
    weights: dict[str, float] = {}
    for batch in batches:
        for name, weight in objective.weights(batch).items():
            weights[name] = weights.get(name, 0.0) + weight
    sums: dict[str, float] = {}
    models.policy.module.zero_grad(set_to_none=True)
    for batch in batches:
        terms = objective.loss(models, batch)
        assert set(terms) == set(weights)
        learned = {name: term for name, term in terms.items() if name not in watched}
        backend.backward(learned, {name: weights[name] for name in learned})
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term.detach())
    means = {name: total / weights[name] for name, total in sums.items()}
    return builders.gradients(models.policy.module), means


def informed(
    objective: Any, models: RunModels, batches: Sequence[Batch], count: int
) -> list[Batch]:
    """Batches that know the figures of their step, of so many examples."""
    if not isinstance(objective, StepStatistics):
        return list(batches)
    known = {"examples": torch.tensor(count), "whole": torch.tensor(len(batches) == 1)}
    batches = [replace(batch, step=known) for batch in batches]
    figures = objective.statistics(models, batches)
    return [replace(batch, step={**known, **figures}) for batch in batches]


def train(
    objective: Any,
    models: RunModels,
    examples: Sequence[Example],
    folder: Path,
    steps: int = 4,
    budget: int = 60,
) -> list[Means]:
    """The engine's own loop over one repeated step; each step's terms."""
    seen: list[Means] = []

    class Tracker:
        def log(self, event: Mapping[str, Any]) -> None:
            if event["kind"] == "step":
                seen.append(event["terms"])

        def close(self) -> None: ...

    spec = TrainingSpec(log_every=1, clip_norm=None, schedule="constant", warmup=0, save_every=99)

    def step(_: int) -> tuple[list[Example], int]:
        return list(examples), 0

    longest = max(example.size for example in examples)
    laid_out = partial(collate, **getattr(models.policy, "layout", {}))
    data = Data(examples, [], step, steps, steps, micro_batches, longest, laid_out, empty_like)
    method = models._method
    loop = Loop(
        spec, RunDir(folder), Backend("cpu"), objective, method, models, data, 3e-3, [Tracker()],
        Stop(), State(choices={"token_budget": budget}),
    )  # fmt: skip
    loop.train()
    return seen


def rows(batch: Batch, head: str) -> int:
    """Rows of a table."""
    return len(batch.targets[head]["example"])


def origin(line: int) -> Origin:
    return Origin("made.jsonl", line)
