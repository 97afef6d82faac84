"""Training runs that take a second: a loop around a tiny model, and whole fits from a recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import torch
from torch import nn

from luthier import environment
from luthier.assemble import Parts, assemble
from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.contracts import Objective
from luthier.core.recipe import TrainingSpec
from luthier.core.records import Example
from luthier.core.rundir import RunDir, read_lines
from luthier.data.batching import collate, empty_like, micro_batches
from luthier.data.order import Order, total_steps
from luthier.engine.backend import Backend, Precision
from luthier.engine.checkpoint import State
from luthier.engine.loop import Data, Loop
from luthier.engine.trackers import Tracker
from luthier.engine.watch import Stop
from luthier.fit import Outcome, fit
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels

LENGTHS = (12, 5, 9, 20, 7, 14, 6)


class Kept:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def log(self, event: Any) -> None:
        self.events.append(dict(event))

    def close(self) -> None:
        pass

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["kind"] == kind]


def small_loop(
    folder: Path,
    *,
    method: str = "full",
    model: nn.Module | None = None,
    objective: Objective | None = None,
    train: Sequence[Example] | None = None,
    held: Sequence[Example] = (),
    budget: int = 64,
    precision: Precision = "float32",
    trackers: Sequence[Tracker] = (),
    stop: Stop | None = None,
    **training: Any,
) -> Loop:
    """A loop as ``fit`` makes it, over documents of :data:`LENGTHS` unless others are given."""
    spec = TrainingSpec(
        **{
            "batch_size": 4,
            "max_steps": 4,
            "epochs": 99,
            "log_every": 1,
            "device": "cpu",
            **training,
        }
    )
    examples = list(train) if train is not None else builders.examples(LENGTHS)
    way = kinds.build("methods", kinds.config("methods", method))
    torch.manual_seed(0)
    module = way.prepare(model if model is not None else builders.tiny("llama"))
    learner = objective or kinds.build(
        "objectives", kinds.config("objectives", "language_modeling")
    )
    order = Order(len(examples), spec.batch_size, spec.seed)
    backend = Backend("cpu", precision)
    data = Data(
        examples,
        held,
        lambda number: ([examples[i] for i in order.step(number)], order.epoch(number)),
        total_steps(len(examples), spec.batch_size, spec.epochs, spec.max_steps),
        order.per_epoch,
        lambda sizes, budget: micro_batches(sizes, budget, backend.ranks),
        max(e.size for e in (*examples, *held)),
        collate,
        empty_like,
    )
    rate = spec.learning_rate if isinstance(spec.learning_rate, float) else 1e-3
    models = RunModels(CausalModel(module), way)
    return Loop(
        spec,
        RunDir(folder),
        backend,
        learner,
        way,
        models,
        data,
        rate,
        trackers,
        stop or Stop(),
        State(choices={"token_budget": budget}),
    )


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    """A copy of what is trained."""
    return {n: p.detach().clone() for n, p in loop.parameters.items()}


def small_recipe(output: Path, method: Any = "full", **training: Any) -> dict[str, Any]:
    """A recipe over a dozen conversations, a model from scratch with dropout in its attention."""
    rows = [
        {"prompt": f"tell me of number {i}", "response": builders.SENTENCES[i % 6]}
        for i in range(14)
    ]
    return {
        "model": {
            "architecture": "llama",
            "config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 48,
                "max_position_embeddings": 128,
                "attention_dropout": 0.1,
            },
            "tokenizer": {"vocab_size": 360},
        },
        "method": method,
        "data": {"train": rows, "validation": 0.2},
        "training": {
            "max_steps": 12,
            "epochs": 99,
            "batch_size": 5,
            "token_budget": 120,
            "learning_rate": 5e-3,
            "precision": "float32",
            "evaluate_every": 5,
            "log_every": 4,
            "threads": 1,
            "device": "cpu",
            "trackers": [],
            **training,
        },
        "output": str(output),
    }


def parts_of(recipe: dict[str, Any]) -> Parts:
    return assemble(recipes.load(recipe), lambda line: None)


def fitted(recipe: dict[str, Any], *, resumed: bool = False, wide: bool = False) -> Outcome:
    """``fit`` alone, and the result saved; ``wide`` trains in float64."""
    folder = RunDir(Path(recipe["output"]))
    folder.path.mkdir(parents=True, exist_ok=True)
    choices = environment.prepare(recipes.load(recipe).training)
    parts = parts_of(recipe)
    if wide:
        parts.loaded.model.module.double()
    outcome = fit(parts, folder, choices, lambda line: None, quiet=True, resumed=resumed)
    if outcome.main and outcome.status != "stopped":
        parts.method.save(parts.loaded.model.module, folder.model)
    return outcome


def fingerprint(folder: Path) -> str:
    """sha256 of the weights that a run gave."""
    files = sorted((folder / "model").glob("*.safetensors"))
    assert files
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def loss_lines(folder: Path) -> list[Any]:
    """Everything in ``events.jsonl`` that does not depend on the clock."""
    clocks = ("seconds", "tokens_per_second", "memory")
    return [
        {k: v for k, v in event.items() if k not in clocks}
        for event in read_lines(RunDir(folder).events)
    ]
