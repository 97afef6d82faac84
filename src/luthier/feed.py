"""What the loop is fed: the model as the method trains it, the data cut to what memory allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from luthier.assemble import Parts, held_out
from luthier.companions import Asking
from luthier.core.contracts import FrozenColumns, LanguageModel, OnlineObjective
from luthier.core.contracts_beside import Solve, Solving
from luthier.core.errors import RecipeError, UserError
from luthier.core.recipe import Recipe
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
from luthier.frozen import Outputs, outputs
from luthier.models import valued
from luthier.models.load import count_parameters, weight_bytes
from luthier.models.plan import Plan, make_plan
from luthier.ops import bottleneck

Say = Callable[[str], None]

#: Tokens that a packed row is filled to a multiple of where shapes are costly.
FILL = 256


def feed(
    parts: Parts, backend: Backend, choices: dict[str, Any], say: Say
) -> tuple[Data, LanguageModel]:
    """Data and policy of a run; ``choices`` learns the token budget.

    Where the method leaves the lowest layers as they are, their output takes their place.

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
    if isinstance(parts.objective, OnlineObjective):
        return data, parts.loaded.model
    if isinstance(parts.objective, FrozenColumns):
        data = _with_columns(parts, backend, data, say)
    kept = outputs(parts, backend, data, choices, say)
    _compile(parts, 0 if kept is None else parts.method.frozen_depth(module))
    solve = parts.method.solve if isinstance(parts.method, Solving) else None
    if kept is None:
        if solve is not None:
            raise UserError(
                "the head is solved for by reading every row again and again, and what the trunk "
                "gives cannot be kept",
                cure="method.solver: sgd; or make room as said above",
                code="cache",
            )
        return data, parts.loaded.model
    steps = _steps(parts, data.train, order_of(parts), kept)
    fed = replace(data, step=steps, validation=kept.validation(data.validation))
    return (fed if solve is None else _solved(parts, backend, fed, kept, solve)), kept.policy


def _solved(parts: Parts, backend: Backend, data: Data, kept: Outputs, solve: Solve) -> Data:
    """The same for a head that is solved for: every row at once, for every strength."""
    store, [head] = data.train, [each.kind for each in parts.objective.heads]
    assert isinstance(store, ExampleStore)
    assert kept.train is not None
    name = f"{head}.{trunk_cache.COLUMN}"
    whole = ExampleStore({**store.arrays, name: kept.train.rows}, store.sources)
    # Of every strength, then of all rows.
    total = solve.iterations * (len(solver.STRENGTHS) + 1)
    rows = partial(_rows, whole, head, backend.device)
    return replace(data, rows=rows, total=total, per_epoch=1)


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
    change = asking.answered
    train = change(_stored(data.train))
    held = change(_stored(data.validation)) if len(data.validation) else data.validation
    return replace(data, train=train, validation=held, step=_steps(parts, train, order_of(parts)))


def _stored(examples: Sequence[Example]) -> ExampleStore:
    """Examples that were arranged for this run as a store."""
    return examples if isinstance(examples, ExampleStore) else ExampleStore.build(examples)


def _prepare(parts: Parts, backend: Backend) -> torch.nn.Module:
    spec = parts.recipe.training
    torch.manual_seed(spec.seed)
    module = parts.method.prepare(parts.loaded.model.module)
    refuse_adapter(parts.recipe, module)
    module.to(backend.device)
    parts.loaded.model = type(parts.loaded.model)(module)
    if any(head.kind == valued.HEAD for head in parts.objective.heads):
        own = bool(getattr(parts.objective, "own_value_trunk", False))
        parts.loaded.model = valued.attach(module, own_trunk=own)
    _check_new_rows(parts)
    trunk: Any = parts.loaded.model.trunk
    if spec.gradient_checkpointing:
        trunk.activation_checkpointing_enable({"use_reentrant": False})
        # Only reentrant checkpointing needs it, and it would send gradients below all that learns.
        trunk.disable_input_require_grads()
    return module


def _compile(parts: Parts, first: int) -> None:
    """The blocks from ``first`` on, where the recipe asks for it."""
    if parts.recipe.training.compile:
        for layer in parts.loaded.model.blocks[first:]:
            layer.compile(dynamic=True)


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


def refuse_adapter(recipe: Recipe, module: torch.nn.Module) -> None:
    """An adapter names the model that it sits on, and no name means some of a model's layers.

    Raises:
        RecipeError: an adapter on a model that ``model.layers`` made.
    """
    inner = getattr(module, "trunk", module)
    adapted = hasattr(inner, "peft_config") or bottleneck.has_adapters(module)
    if recipe.model.layers is not None and adapted:
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
    if isinstance(parts.objective, OnlineObjective):
        longest = parts.objective.longest(longest)
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
    if longest > plan.token_budget and isinstance(parts.objective, OnlineObjective):
        raise RecipeError(
            f"a prompt with its answers may have {longest:,} tokens, more than "
            f"training.token_budget ({plan.token_budget:,})",
            cure="raise training.token_budget, or lower objective.answers or "
            "objective.max_new_tokens",
            code="over-budget",
        )
    for store in stores:
        check_budget(store.sizes, plan.token_budget, store.origin)
    return plan


def _data(parts: Parts, backend: Backend, plan: Plan) -> Data:
    spec = parts.recipe.training
    examples = parts.train[1].examples
    held = held_out(parts)
    order = order_of(parts)
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


def order_of(parts: Parts) -> Order:
    """Which examples each step takes."""
    spec = parts.recipe.training
    pools = parts.drawing[1] if parts.drawing else ()
    return Order(len(parts.train[1].examples), spec.batch_size, spec.seed, pools)


def _steps(
    parts: Parts, examples: Sequence[Example], order: Order, kept: Outputs | None = None
) -> Callable[[int], tuple[list[Example], int]]:
    """The examples of step n, arranged for its epoch, with what was kept of them."""
    seed = parts.recipe.training.seed

    def step(number: int) -> tuple[list[Example], int]:
        epoch = order.epoch(number)
        indices = order.step(number)
        chosen = [examples[i] for i in indices]
        rng = generator(seed, epoch, number, 1)
        arranged = list(parts.objective.arrange(chosen, rng))
        return arranged if kept is None else kept.arranged(chosen, indices, arranged), epoch

    return step
