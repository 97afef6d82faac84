"""What a frozen trunk gives, in place of its passes: whether it can be kept, and where.

A trunk that stays as it is as a whole gives pooled states to a head; one whose lowest layers do
gives each token's state after them, on which the layers above are run. Everything else (order,
micro-batches, validation) is as without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from luthier.assemble import Parts
from luthier.core import cache
from luthier.core.contracts import HeadedModel, LanguageModel
from luthier.core.contracts_models import STATES, DividedModel
from luthier.core.records import Batch, Example
from luthier.core.words import size
from luthier.data.order import generator
from luthier.data.store import ExampleStore
from luthier.engine import trunk_cache
from luthier.engine.backend import Backend
from luthier.engine.loop import Data, every
from luthier.engine.trunk_cache import CachedTrunk, Kept, KeptExamples

Say = Callable[[str], None]
#: Arrays of a store that states depend on, by how their names begin.
_READ = ("token", "segment", "example")


@dataclass(frozen=True)
class Outputs:
    """What the loop is fed in place of texts.

    Attributes:
        policy: the model that takes examples with what was kept of them, and without.
        train: of the training examples; ``None`` where nothing is kept of them.
        held: the same of the held-out ones.
    """

    policy: LanguageModel
    train: Kept | None
    held: Kept | None

    def validation(self, examples: Sequence[Example]) -> Sequence[Example]:
        """Held-out examples, each with what was kept of it."""
        return examples if self.held is None else KeptExamples(examples, self.held)

    def arranged(
        self, before: Sequence[Example], indices: Sequence[int], after: Sequence[Example]
    ) -> list[Example]:
        """A step's examples with what was kept of them, where they are those it was kept of.

        Args:
            before: examples of the store.
            indices: their numbers in it.
            after: the same as the objective arranged them for this epoch.
        """
        numbers = {id(example): i for example, i in zip(before, indices, strict=True)}
        if self.train is None or any(id(example) not in numbers for example in after):
            return list(after)
        return [self.train.on(example, numbers[id(example)]) for example in after]


@dataclass(frozen=True)
class _Frozen:
    """What stays as it is, and how its output is computed.

    Attributes:
        said: what it is, in words.
        table: the examples' table for its output.
        compute: a batch to the rows of that table.
        policy: the model that the loop trains on examples with them.
        width: bytes of a row.
        detail: what a key must know beside weights, tokens and arithmetic.
        why: why the output cannot be kept.
    """

    said: str
    table: str = ""
    compute: Callable[[Batch], Tensor] | None = None
    policy: LanguageModel | None = None
    width: int = 0
    detail: tuple[Any, ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class _Entry:
    """One side of the data: where the rows of each example end, and where they are kept."""

    store: ExampleStore
    ends: npt.NDArray[Any]
    place: Path
    again: bool

    def bytes(self, width: int) -> int:
        """What is yet to be written."""
        return 0 if self.place.is_dir() or not self.again else int(self.ends[-1]) * width


def outputs(
    parts: Parts, backend: Backend, data: Data, choices: dict[str, Any], say: Say
) -> Outputs | None:
    """The frozen part's output for a run; ``None`` where nothing is kept, which is said.

    Args:
        parts: the run's parts, its method prepared.
        backend: device, ranks, precision.
        data: what the loop is fed without.
        choices: learns what was decided; a resumed run goes on with that.
        say: takes a line for the user.
    """
    depth = parts.method.frozen_depth(parts.loaded.model.module)
    if not depth:
        return None
    before = choices.get("frozen")
    with backend.arithmetic():
        frozen = _frozen(parts, data, depth)
    why, needed, entries = frozen.why, 0, list[_Entry]()
    if why is None and before != "computed":
        entries = _entries(parts, backend, data, frozen)
        needed = sum(entry.bytes(frozen.width) for entry in entries)
        lacking = trunk_cache.room(needed, cache.place("trunks", "any")) if needed else None
        if backend.agree(lacking is not None):
            why = f"keeping it takes {size(needed)}, and {lacking or 'another rank has no room'}"
        elif not any(entry.again for entry in entries):
            why = "every row is read once"
    if why is not None or before == "computed":
        _decide(choices, "computed", say)
        reason = f": {why}" if why else ""
        say(f"{frozen.said}; their output is computed at every step{reason}")
        return None
    _decide(choices, "kept", say)
    taking = f", {size(needed)} in {cache.folder()}" if needed else ", and is there already"
    say(f"{frozen.said}; their output is computed once and kept{taking}")
    with backend.arithmetic():
        made = [_filled(parts, data, frozen, choices, entry) for entry in entries]
    cache.trim()
    assert frozen.policy is not None
    sides = {id(entry.store): kept for entry, kept in zip(entries, made, strict=True)}
    return Outputs(frozen.policy, *(sides.get(id(s)) for s in (data.train, data.validation)))


def _decide(choices: dict[str, Any], now: str, say: Say) -> None:
    if choices.setdefault("frozen", now) != now:
        say("inexact from here on: what the frozen layers give was kept, and cannot be any more")
        choices["frozen"] = now
    choices.setdefault("frozen_budget", choices["token_budget"])


def _frozen(parts: Parts, data: Data, depth: int) -> _Frozen:
    """How the frozen part is computed, or why its output cannot be kept."""
    model, objective = parts.loaded.model, parts.objective
    two = getattr(model.config, "is_encoder_decoder", False)
    layers = len(model.blocks) if two else int(model.config.num_hidden_layers)
    which = f"{layers} layers, the encoder's first," if two else f"{layers} layers"
    said = f"the lowest {depth} of {which} stay as they are, without dropout"
    examples = [data.train[i] for i in range(min(2, len(data.train)))]
    arranged = objective.arrange(examples, generator(parts.recipe.training.seed, 0, 0, 1))
    if {id(example) for example in arranged} - {id(example) for example in examples}:
        return _Frozen(said, why=f"'{objective.config.kind}' makes new examples in every epoch")
    batch = data.collate(examples)
    heads = [head.kind for head in objective.heads]
    if depth == layers and heads != ["lm"] and len(heads) == 1 and isinstance(model, HeadedModel):
        [head] = heads
        compute = trunk_cache.pooling(model, head)
        why, rows = trunk_cache.obstacle(model.module, compute, batch)
        if why is None:
            said = "the trunk stays as it is, without dropout"
            policy = CachedTrunk(model, head)
            return _Frozen(said, head, compute, policy, _width(rows), ("pooled", model.pooling))
    assert isinstance(model, DividedModel)
    why = model.divide(depth)
    if why is None and parts.recipe.training.neftune_alpha is not None:
        why = "training.neftune_alpha adds noise below them"
    if why is not None:
        return _Frozen(said, why=why)
    why, rows = trunk_cache.obstacle(model.module, model.lower, batch)
    width = _width(rows)
    return _Frozen(said, STATES, model.lower, model, width, ("states", depth), why)


def _width(rows: Tensor) -> int:
    wide = torch.promote_types(rows.dtype, torch.float32)
    return rows.shape[1] * torch.empty(0, dtype=wide).element_size()


def _entries(parts: Parts, backend: Backend, data: Data, frozen: _Frozen) -> list[_Entry]:
    """Both sides of the data; pooled rows are few, and kept though they be read once."""
    model, spec = parts.loaded.model, parts.recipe.training
    weights = trunk_cache.trunk_key(model.module), trunk_cache.shape_key(model.config)
    versions = torch.__version__, transformers.__version__, backend.device.type
    measured = data.total // every(spec.evaluate_every, data.total, data.per_epoch)
    often = [(data.total - 1) * spec.batch_size >= len(data.train), measured > 1]
    pooled = frozen.table != STATES
    stream = "" if pooled else model.lower_stream
    found = []
    for store, again in zip((data.train, data.validation), often, strict=True):
        if not isinstance(store, ExampleStore):  # none, or arranged for this run alone
            continue
        tokens = hashlib.sha256()
        for name in sorted(store.arrays):
            if name.startswith(_READ) or (pooled and name == f"{frozen.table}.position"):
                tokens.update(np.ascontiguousarray(store.arrays[name]).data)
        key = cache.key(*weights, *versions, tokens.hexdigest(), backend.precision, *frozen.detail)
        place = cache.place("trunks", key)
        ends = store.arrays[f"rows.{frozen.table}"] if pooled else store.ends(stream)
        found.append(_Entry(store, ends, place, again or pooled or place.is_dir()))
    return found


def _filled(
    parts: Parts, data: Data, frozen: _Frozen, choices: dict[str, Any], entry: _Entry
) -> Kept | None:
    if not entry.again:
        return None
    assert frozen.compute is not None
    module, budget = parts.loaded.model.module, choices["frozen_budget"]

    def cut(sizes: Sequence[int]) -> list[list[int]]:
        return data.cut(sizes, max(budget, data.longest))

    return trunk_cache.kept(
        entry.store, frozen.table, entry.ends, frozen.compute, module, cut, data.collate,
        entry.place,
    )  # fmt: skip
