"""What the loop is fed: the model as the method trains it, the data cut to what memory allows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from luthier.assemble import Parts, held_out
from luthier.companions import Asking
from luthier.core import cache
from luthier.core.contracts import FrozenColumns, HeadedModel, LanguageModel
from luthier.core.contracts_beside import Solving
from luthier.core.contracts_tasks import Tasked
from luthier.core.errors import RecipeError
from luthier.core.records import Batch, Example, Ints, SegmentTable
from luthier.data.batching import (
    check_budget,
    collate,
    empty_like,
    micro_batches,
    move,
    padded_batches,
)
from luthier.data.order import Order, generator, total_steps
from luthier.data.store import ExampleStore
from luthier.engine import solver, trunk_cache
from luthier.engine.backend import Backend
from luthier.engine.loop import Data
from luthier.models.load import count_parameters, weight_bytes
from luthier.models.plan import Plan, make_plan

Say = Callable[[str], None]

#: Tokens that a packed row is filled to a multiple of where shapes are costly.
FILL = 256


def feed(
    parts: Parts, backend: Backend, choices: dict[str, Any], say: Say
) -> tuple[Data, LanguageModel]:
    """Data and policy of a run; ``choices`` learns the token budget.

    Where the method leaves the whole trunk as it is, its activations take the texts' place.

    Raises:
        UserError: not even the longest example fits into memory.
    """
    module = _prepare(parts, backend)
    if parts.loaded.model.layout.get("layout") == "padded":
        kind = parts.loaded.model.config.model_type
        say(f"'{kind}' cannot be packed: rows of nearly one length are padded instead")
    plan = _plan(parts, backend, choices)
    choices["token_budget"] = plan.token_budget
    if parts.objective.needs_reference:
        parts.method.keep_start(module)
    data = _data(parts, backend, plan)
    if isinstance(parts.objective, FrozenColumns):
        data = _with_columns(parts, backend, data, say)
    layers = int(parts.loaded.model.config.num_hidden_layers)
    if parts.method.frozen_depth(module) < layers:
        return data, parts.loaded.model
    say("the trunk stays as it is: its activations are computed once")
    return _on_frozen_trunk(parts, backend, data, plan)


def _on_frozen_trunk(
    parts: Parts, backend: Backend, data: Data, plan: Plan
) -> tuple[Data, LanguageModel]:
    """The same with the trunk's activations in place of its passes."""
    model = parts.loaded.model
    read = _read_by(parts)
    weights = trunk_cache.trunk_key(model.module)

    def cut(sizes: Sequence[int]) -> list[list[int]]:
        return data.cut(sizes, plan.token_budget)

    def with_states(store: ExampleStore) -> ExampleStore:
        tokens = hashlib.sha256()
        for name in sorted(store.arrays):
            if name.startswith(("token", "segment", "example")) or name.endswith(".position"):
                tokens.update(store.arrays[name].tobytes())
        arrays = dict(store.arrays)
        for table, one in read.items():
            of = [] if isinstance(model, HeadedModel) else [table]
            name = cache.key(weights, tokens.hexdigest(), one.pooling, backend.precision, *of)
            place = cache.place("trunks", name)
            with backend.arithmetic():
                rows = trunk_cache.activations(store, table, one, cut, data.collate, place)
            arrays[f"{table}.{trunk_cache.COLUMN}"] = rows
        cache.trim()
        return ExampleStore(arrays, store.sources)

    data = _mapped(parts, data, with_states)
    assert isinstance(data.train, ExampleStore)
    if not isinstance(model, HeadedModel):
        return data, cast("LanguageModel", trunk_cache.CachedTrunks(model, parts.loaded.head))
    [head] = read
    data = replace(data, rows=partial(_rows, data.train, head, backend.device))
    solve = parts.method.solve if isinstance(parts.method, Solving) else None
    if solve is not None:
        # Of every strength, then of all rows.
        data = replace(data, total=solve.iterations * (len(solver.STRENGTHS) + 1), per_epoch=1)
    return data, trunk_cache.CachedTrunk(model, head)


def _read_by(parts: Parts) -> dict[str, Any]:
    """Each table with rows that a head reads, and the model of that head."""
    model: Any = parts.loaded.model
    if not isinstance(parts.objective, Tasked):
        [head] = parts.objective.heads
        return {head.kind: model}
    each = model.head.parts
    return {parts.objective.table(part.name, part.kind): model.view(part.name) for part in each}


def _rows(store: ExampleStore, head: str, device: torch.device, chosen: Ints) -> Batch:
    """Chosen rows of a head's table, which has one an example, without any token."""
    columns = {name: store.arrays[f"{head}.{name}"][chosen] for name in store.heads[head]}
    table = {
        name: torch.from_numpy(c.astype(np.int64) if c.dtype == np.int32 else np.array(c))
        for name, c in columns.items()
    }
    nothing = torch.zeros(0, dtype=torch.int64)
    batch = Batch(nothing, nothing, SegmentTable((), (), ()), {head: table}, (), nothing)
    return move(batch, device)


def _with_columns(parts: Parts, backend: Backend, data: Data, say: Say) -> Data:
    """The same with the columns that the steps do not change."""
    asking = Asking(
        parts.objective,
        parts.method,
        parts.loaded.model,
        parts.companions,
        backend,
        data.collate,
        say,
    )
    return _mapped(parts, data, asking.answered)


def _mapped(parts: Parts, data: Data, change: Callable[[ExampleStore], ExampleStore]) -> Data:
    """The data with both sides' examples changed."""
    sides = [change(s) if isinstance(s, ExampleStore) else s for s in (data.train, data.validation)]
    train, held = sides
    return replace(data, train=train, validation=held, step=_steps(parts, train, _order(parts)))


def _prepare(parts: Parts, backend: Backend) -> torch.nn.Module:
    spec = parts.recipe.training
    torch.manual_seed(spec.seed)
    module = parts.method.prepare(parts.loaded.model.module)
    _refuse_adapter(parts, module)
    module.to(backend.device)
    parts.loaded.model = type(parts.loaded.model)(module)
    _check_new_rows(parts)
    trunk: Any = parts.loaded.model.trunk
    if spec.gradient_checkpointing:
        trunk.gradient_checkpointing_enable({"use_reentrant": False})
        trunk.enable_input_require_grads()
    if spec.compile:
        for layer in parts.loaded.model.blocks:
            layer.compile(dynamic=True)
    return module


def _check_new_rows(parts: Parts) -> None:
    """New tokens must learn.

    Raises:
        RecipeError: the method trains no row of the embeddings.
    """
    if not parts.recipe.model.new_tokens:
        return
    trunk: Any = parts.loaded.model.trunk
    embeddings = trunk.get_input_embeddings()
    if not any(parameter.requires_grad for parameter in embeddings.parameters()):
        kind = parts.recipe.method.kind
        raise RecipeError(
            f"model.new_tokens: method '{kind}' trains no embeddings, so the new tokens would stay "
            "as they begin",
            cure="method: lora, qlora or full",
            code="pairing",
        )


def _refuse_adapter(parts: Parts, module: torch.nn.Module) -> None:
    """An adapter names the model that it sits on, and no name means some of a model's layers.

    Raises:
        RecipeError: an adapter on a model that ``model.layers`` made.
    """
    inner = getattr(module, "trunk", module)
    if parts.recipe.model.layers is not None and hasattr(inner, "peft_config"):
        raise RecipeError(
            "model.layers makes a model that only this run has, and an adapter is nothing without "
            "its base",
            cure="method: full; an adapter can start from that run's result",
            code="pairing",
        )


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
        weights=weight_bytes(parts.loaded.model.module),
        averaged=spec.ema is not None,
    )
    for store in stores:
        check_budget(store.sizes, plan.token_budget, store.origin)
    return plan


def _data(parts: Parts, backend: Backend, plan: Plan) -> Data:
    spec = parts.recipe.training
    examples = parts.train[1].examples
    held = held_out(parts)
    order = _order(parts)
    total = total_steps(order.count, spec.batch_size, spec.epochs, spec.max_steps)
    step = _steps(parts, examples, order)
    layout = parts.loaded.model.layout
    # On CPUs every new shape of a 16-bit product costs a new kernel, in time and memory.
    fill = FILL if backend.device.type == "cpu" and backend.precision == "bfloat16" else 1

    def to_batch(chosen: Sequence[Example]) -> Batch:
        return move(collate(chosen, fill=fill, **layout), backend.device)

    def cut(sizes: Sequence[int], budget: int) -> list[list[int]]:
        divide = micro_batches if layout.get("layout") != "padded" else padded_batches
        return divide(sizes, budget, backend.ranks)

    return Data(
        examples, held, step, total, order.per_epoch, cut, plan.longest, to_batch, empty_like
    )


def _order(parts: Parts) -> Order:
    """Which examples each step takes."""
    spec = parts.recipe.training
    pools = parts.drawing[1] if parts.drawing else ()
    return Order(len(parts.train[1].examples), spec.batch_size, spec.seed, pools)


def _steps(
    parts: Parts, examples: Sequence[Example], order: Order
) -> Callable[[int], tuple[list[Example], int]]:
    """The examples of step n, arranged for its epoch."""
    seed = parts.recipe.training.seed

    def step(number: int) -> tuple[list[Example], int]:
        epoch = order.epoch(number)
        chosen = [examples[i] for i in order.step(number)]
        rng = generator(seed, epoch, number, 1)
        return list(parts.objective.arrange(chosen, rng)), epoch

    return step
