"""Parts to a trained model: method, plan, probe, loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from luthier import environment
from luthier.assemble import Parts
from luthier.core import cache
from luthier.core.errors import RecipeError, TrainingError, nearest
from luthier.core.records import Batch, Example
from luthier.core.rundir import RunDir, write_text
from luthier.data.batching import check_budget, collate, empty_like, micro_batches, move
from luthier.data.order import Order, generator, total_steps
from luthier.engine import checkpoint, probe
from luthier.engine.backend import Backend
from luthier.engine.checkpoint import State
from luthier.engine.loop import Data, Loop
from luthier.engine.trackers import Tracker, open_trackers
from luthier.engine.watch import Stop, signals
from luthier.models.language_model import CausalModel
from luthier.models.load import count_parameters
from luthier.models.plan import Plan, inner_size, make_plan
from luthier.models.run_models import RunModels

Say = Callable[[str], None]

#: Tokens that a packed row is filled to a multiple of where shapes are costly.
FILL = 256


@dataclass(frozen=True)
class Outcome:
    """How training ended, and whether this process is the one that writes."""

    status: Literal["finished", "early", "stopped"]
    main: bool


def fit(
    parts: Parts,
    folder: RunDir,
    choices: dict[str, Any],
    say: Say,
    *,
    quiet: bool,
    resumed: bool,
) -> Outcome:
    """Trains ``parts.loaded.model`` in place.

    Args:
        parts: from :func:`luthier.assemble.assemble`.
        folder: the run folder.
        choices: what was chosen for this machine so far (threads).
        say: takes a line for the user.
        quiet: no progress on the terminal.
        resumed: whether to continue from the newest checkpoint.

    Raises:
        TrainingError: nothing to resume from, or a run that had to stop.
    """
    spec = parts.recipe.training
    kept = _newest(folder) if resumed else None
    old = checkpoint.read_state(kept) if kept else None
    fingerprint = fingerprints(parts)
    if old:
        _same(old.fingerprint, fingerprint)
    choices = dict(old.choices) if old else {**choices, **_probe(parts)}
    backend = Backend(spec.device, choices["precision"])
    if not backend.main:
        say, quiet = _silent, True
    data = _ready(parts, backend, choices)
    _announce(parts, backend, choices, data, say)
    _check_metric(parts, data)
    if backend.main and not old:
        write_text(folder.recipe, parts.recipe.to_yaml())
        environment.write(folder, _environment(parts, backend, choices))
    done = old.step if old else 0
    trackers = open_trackers(folder, spec.trackers, data.total, done, quiet) if backend.main else []
    with signals() as stop, closing(trackers):
        state = State(choices=choices, fingerprint=fingerprint)
        loop = _loop(parts, folder, backend, data, trackers, stop, state)
        if kept:
            loop.resume(kept)
            say(f"continuing after step {loop.state.step:,}")
        status = loop.train()
    if status == "early":
        _take_best(loop, folder, say)
    return Outcome(status, backend.main)


def _loop(
    parts: Parts,
    folder: RunDir,
    backend: Backend,
    data: Data,
    trackers: Sequence[Tracker],
    stop: Stop,
    state: State,
) -> Loop:
    return Loop(
        parts.recipe.training,
        folder,
        backend,
        parts.objective,
        parts.method,
        RunModels(parts.loaded.model, parts.method),
        data,
        peak_rate(parts),
        trackers,
        stop,
        state,
    )


def peak_rate(parts: Parts) -> float:
    """The recipe's learning rate, or the method's own."""
    rate = parts.recipe.training.learning_rate
    return parts.method.default_rate if isinstance(rate, str) else rate


@contextmanager
def closing(trackers: Sequence[Tracker]) -> Iterator[None]:
    """Closes every tracker, whatever happens."""
    try:
        yield
    finally:
        for tracker in trackers:
            tracker.close()


def _announce(
    parts: Parts, backend: Backend, choices: dict[str, Any], data: Data, say: Say
) -> None:
    trainable, total = count_parameters(parts.loaded.model.module)
    say(f"trainable: {trainable:,} of {total:,} ({trainable / total:.2%})")
    say(
        f"{data.total:,} steps of {parts.recipe.training.batch_size} examples, "
        f"{choices['token_budget']:,} tokens at most in a micro-batch"
    )
    say(
        f"{choices['precision']} on {backend.device}, {choices['threads']} threads "
        f"({choices['because']})"
    )


def _take_best(loop: Loop, folder: RunDir, say: Say) -> None:
    assert loop.state.best is not None
    best = loop.state.best[1]
    checkpoint.load_weights(folder.checkpoint(best), loop.parameters)
    say(f"stopped early; the result is the best checkpoint, of step {best:,}")


def fingerprints(parts: Parts) -> dict[str, str]:
    """What a resumed run must share with the one that was stopped, by name."""
    plain = parts.recipe.resolved()
    training = plain["training"]
    held = parts.validation[0].fingerprint if parts.validation else ""
    return {
        "model": cache.key(plain["model"]),
        "objective": cache.key(plain["objective"]),
        "method": cache.key(plain["method"]),
        "training data": parts.train[0].fingerprint,
        "validation data": held,
        "tokens": cache.key(parts.codec.fingerprint(), parts.codec.max_length),
        **{
            f"training.{name}": cache.key(training[name])
            for name in ("batch_size", "optimizer", "betas", "weight_decay", "seed", "clip_norm")
        },
    }


def _ready(parts: Parts, backend: Backend, choices: dict[str, Any]) -> Data:
    """The model as the method trains it, and the data cut to what memory allows."""
    module = _prepare(parts, backend)
    plan = _plan(parts, backend, choices)
    choices["token_budget"] = plan.token_budget
    if parts.objective.needs_reference:
        parts.method.keep_start(module)
    return _data(parts, backend, plan)


def _prepare(parts: Parts, backend: Backend) -> torch.nn.Module:
    spec = parts.recipe.training
    torch.manual_seed(spec.seed)
    module = parts.method.prepare(parts.loaded.model.module)
    module.to(backend.device)
    parts.loaded.model = CausalModel(module)
    if spec.gradient_checkpointing:
        base = parts.loaded.model.base
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    if spec.compile:
        for layer in parts.loaded.model.trunk.layers:  # type: ignore[union-attr]
            layer.compile(dynamic=True)
    return module


def _plan(parts: Parts, backend: Backend, choices: dict[str, Any]) -> Plan:
    spec = parts.recipe.training
    stores = [parts.train[1].examples]
    if parts.validation:
        stores.append(parts.validation[1].examples)
    longest = max(int(store.sizes.max()) for store in stores)
    trainable, total = count_parameters(parts.loaded.model.module)
    plan = make_plan(
        parts.loaded.model.config,
        total,
        trainable,
        longest=longest,
        device=backend.device,
        budget=choices.get("token_budget", spec.token_budget),
        sixteen_bit=choices["precision"] != "float32",
        recompute=spec.gradient_checkpointing,
    )
    for store in stores:
        sizes = store.sizes.tolist()
        check_budget(sizes, plan.token_budget, [store.origin(i) for i in range(len(store))])
    return plan


def _data(parts: Parts, backend: Backend, plan: Plan) -> Data:
    spec = parts.recipe.training
    examples = parts.train[1].examples
    held = parts.validation[1].examples if parts.validation else []
    order = Order(len(examples), spec.batch_size, spec.seed)
    total = total_steps(len(examples), spec.batch_size, spec.epochs, spec.max_steps)

    def step(number: int) -> tuple[list[Example], int]:
        epoch = order.epoch(number)
        chosen = [examples[i] for i in order.step(number)]
        rng = generator(spec.seed, epoch, number, 1)
        return list(parts.objective.arrange(chosen, rng)), epoch

    # On CPUs every new shape of a 16-bit product costs a new kernel, in time and memory.
    fill = FILL if backend.device.type == "cpu" and backend.precision == "bfloat16" else 1

    def to_batch(chosen: Sequence[Example]) -> Batch:
        return move(collate(chosen, fill=fill), backend.device)

    def cut(sizes: Sequence[int]) -> list[list[int]]:
        return micro_batches(sizes, plan.token_budget, backend.ranks)

    return Data(examples, held, step, total, order.per_epoch, cut, to_batch, empty_like)


def _probe(parts: Parts) -> dict[str, Any]:
    config = parts.loaded.model.config
    return probe.choose(parts.recipe.training, config.hidden_size, inner_size(config))


def _newest(folder: RunDir) -> Any:
    saved = folder.saved()
    if not saved:
        raise TrainingError(
            f"run '{folder.path}' has no checkpoint to continue from",
            cure="start it afresh with another output",
        )
    return saved[-1][1]


def _same(old: dict[str, str], new: dict[str, str]) -> None:
    changed = [name for name in new if old.get(name) != new[name]]
    if changed:
        raise RecipeError(
            "the run cannot be continued exactly: changed since it began: " + ", ".join(changed),
            cure="restore them, or start a new run from this one's model",
            code="changed",
        )


def _check_metric(parts: Parts, data: Data) -> None:
    rule = parts.recipe.training.early_stopping
    if rule is None:
        return
    if not data.validation:
        raise RecipeError("training.early_stopping needs data.validation")
    names = ["loss", *parts.objective.weights(data.collate([data.train[0]]))]
    if rule.metric not in names:
        raise RecipeError(
            f"training.early_stopping.metric '{rule.metric}': {nearest(rule.metric, names)}"
        )


def _environment(parts: Parts, backend: Backend, choices: dict[str, Any]) -> dict[str, Any]:
    trainable, total = count_parameters(parts.loaded.model.module)
    data = {"train": parts.train[1].counts}
    if parts.validation:
        data["validation"] = parts.validation[1].counts
    return {
        "device": str(backend.device),
        "ranks": backend.ranks,
        "threads": choices["threads"],
        "precision": choices["precision"],
        "probe": choices,
        "parameters": {"trainable": trainable, "total": total},
        "data": data,
    }


def _silent(_line: str) -> None:
    """Ranks but the first say nothing."""
