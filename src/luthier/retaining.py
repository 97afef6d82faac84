"""Rows of what a model could do before: measured before and after, and replayed where asked.

What training on new rows takes away from the old ones is forgetting. It is measured on rows held
out from the old kind; a share of the others may be learned again among the new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from luthier.core import kinds
from luthier.core.contracts import FrozenColumns, Objective, Settling
from luthier.core.contracts_scores import Scoring
from luthier.core.contracts_text import Tokenized
from luthier.core.errors import RecipeError
from luthier.core.recipe import DataSpec, Recipe
from luthier.core.recipe_retain import RetainSpec
from luthier.data.mixture import Drawing
from luthier.data.order import Pool
from luthier.data.parts import Part
from luthier.data.prepare import Encoded, encode
from luthier.data.sides import known_parts
from luthier.data.store import ExampleStore
from luthier.data.template import TokenizerCodec

Say = Callable[[str], None]
#: What an epoch draws, and from where.
Drawn = tuple[Drawing, tuple[Pool, ...]]


@dataclass(frozen=True)
class Retained:
    """Old rows, understood.

    Attributes:
        objective: what they are measured by.
        held: those that are measured.
        replayed: those that may be learned again; ``None`` where none is.
    """

    objective: Objective
    held: tuple[Part, Encoded]
    replayed: tuple[Part, Encoded] | None


def retained(
    recipe: Recipe, objective: Objective, codec: TokenizerCodec, say: Say
) -> Retained | None:
    """The old rows of a recipe in tokens; ``None`` where it names none.

    Args:
        recipe: with its ``retain``.
        objective: the run's own, settled.
        codec: turns to tokens and back.
        say: takes a line for the user.

    Raises:
        RecipeError: rows that the run's model cannot be measured on.
        DataError: rows that cannot be read.
    """
    spec = recipe.retain
    if spec is None:
        return None
    own: Objective = objective
    if spec.objective is not None:
        own = kinds.build("objectives", spec.objective)
    if isinstance(own, Settling) and own.config.kind == objective.config.kind:
        own = objective  # the run's own classes, which its head has
    if isinstance(own, Tokenized):
        own = own.with_codec(codec)
    if mismatch := unmeasurable(objective, own):
        raise RecipeError(mismatch, cure="name another retain.objective", code="pairing")
    data = _spec(spec, recipe.data)
    said: list[str] = []
    first, second = known_parts(data, own, recipe.training.seed, said.append)
    for line in said:
        say(f"retain: {line}")
    parts = [(part, encode(part, data, own, codec)) for part in (first, second) if part is not None]
    held = parts[-1]
    replayed = parts[0] if len(parts) == 2 else None
    say(f"retain: {len(held[0].records):,} old rows are measured before and after")
    return Retained(own, held, replayed)


def unmeasurable(objective: Objective, own: Objective) -> str:
    """Why a run's model cannot be measured on what another objective reads; empty if it can."""
    if isinstance(own, FrozenColumns) and isinstance(own, Scoring):
        return (
            f"'{own.config.kind}' measures answers against the run's own start, which old rows "
            "say nothing of"
        )
    kinds_ = [{head.kind for head in each.heads} for each in (objective, own)]
    if kinds_[0] == kinds_[1]:
        return ""
    return (
        f"retain.objective '{own.config.kind}' reads another head than "
        f"'{objective.config.kind}', and the run has but one"
    )


def replayed(
    train: ExampleStore, drawn: Drawn | None, old: ExampleStore, share: float
) -> tuple[ExampleStore, Drawn]:
    """New and old examples end to end, and what an epoch draws of each.

    Args:
        train: the run's own.
        drawn: what an epoch draws of them, where that is not every one once.
        old: those to replay.
        share: of an epoch that they are.

    Raises:
        RecipeError: examples of two kinds.
    """
    if {n: sorted(c) for n, c in train.heads.items()} != {
        n: sorted(c) for n, c in old.heads.items()
    }:
        raise RecipeError(
            "retain.replay: old rows become examples of another kind than the run's own",
            cure="retain.objective: one that learns as the run's does, or leave out replay",
            code="pairing",
        )
    size = len(train)
    drawing, pools = drawn or (Drawing("source", ("data.train",), (size,), (size,)), ())
    if not pools:
        pools = (Pool(np.arange(size), size),)
    count = max(1, round(drawing.length * share / (1 - share)))
    both = replace(
        drawing,
        names=(*drawing.names, "retain.rows"),
        rows=(*drawing.rows, len(old)),
        draws=(*drawing.draws, count),
    )
    members = np.arange(size, size + len(old))
    return ExampleStore.joined([train, old]), (both, (*pools, Pool(members, count)))


def _spec(spec: RetainSpec, data: DataSpec) -> DataSpec:
    """How old rows are read: as the run's own, but for what ``retain`` says itself."""
    changes = {
        "train": _source(spec.rows),
        "mixture": None,
        "validation": _source(spec.validation) if spec.replay else 0.0,
        "format": spec.format,
        "columns": spec.columns,
        "limit": spec.limit,
        "clean": (),
        "subset": None,
        "augment": (),
        "augment_share": 1.0,
        "group": None,
        "balance": None,
    }
    return data.model_copy(update=changes)


def _source(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
