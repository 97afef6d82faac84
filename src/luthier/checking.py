"""Data checked before a step is spent: files by themselves, or as a recipe would use them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.core import kinds
from luthier.core.contracts import Objective
from luthier.core.errors import RecipeError
from luthier.core.recipe import Recipe
from luthier.core.records import Record
from luthier.core.rundir import RunDir
from luthier.data.check import Ask, Progress, Report, check, sides, silent
from luthier.data.checks._base import TRAIN, Tokens
from luthier.data.parts import Part
from luthier.preview import dressed, settled
from luthier.stages import plan


def check_recipe(
    recipe: Recipe,
    values: Sequence[str] = (),
    progress: Progress = silent,
    *,
    by_row: bool = False,
) -> list[Report]:
    """The data of a recipe, a report a stage; no weight is loaded.

    Args:
        recipe: its objective, format, columns, template, tokenizer and split are used.
        values: sources to check in place of the recipe's own.
        progress: told how far it is.
        by_row: whether the codes found at each row are kept.

    Raises:
        UserError: no such model, or nothing to check.
    """
    if not recipe.stages:
        return [check(replace(_asked(recipe, values), by_row=by_row), progress)]
    found = []
    before: Recipe | None = None
    for stage in plan(recipe, RunDir(Path(recipe.output or "runs"))):
        own = stage.recipe
        if stage.chained and before is not None:  # its model will be made of this one
            own = own.model_copy(update={"model": before.model})
        found.append(check(replace(_asked(own, values), by_row=by_row), progress))
        before = own
    return found


def _asked(recipe: Recipe, values: Sequence[str]) -> Ask:
    spec = recipe.data
    objective: Objective = kinds.build("objectives", recipe.objective)
    held_out = float(spec.validation) if isinstance(spec.validation, int | float) else 0.0
    asked = Ask(
        [(TRAIN, spec.train)],
        True,
        spec.format,
        spec.columns,
        objective.records,
        spec.limit,
        held_out,
        recipe.training.seed,
        spec.group,
        tuple(getattr(recipe.objective, "classes", None) or ()),
        lambda records: _tokens(recipe, objective, records),
        spec.timeout,
    )
    if values:
        found, known = sides(values)
        if len(found) == 1:
            found, known = [(TRAIN, found[0][1])], True
        return replace(asked, sides=found, splits_known=known)
    if spec.train is None:
        raise RecipeError(
            "the recipe names no rows to check", cure="set data.train, or name files to check"
        )
    if spec.validation is None or isinstance(spec.validation, int | float):
        return asked
    return replace(asked, sides=[(TRAIN, spec.train), ("validation", spec.validation)])


def _tokens(recipe: Recipe, objective: Objective, records: Sequence[Record]) -> Tokens:
    """The recipe's path to tokens, its objective settled on the training records."""
    content = hashlib.sha256()
    for record in records:
        content.update(repr(record).encode("utf-8", "replace"))
    objective = settled(recipe, objective, records)
    recipe = recipe.model_copy(update={"objective": objective.config})
    seen = dressed(recipe, objective, Part(tuple(records), content.hexdigest(), 0, ()))
    trunk: Any = seen.loaded.model.trunk
    rows = int(trunk.get_input_embeddings().weight.shape[0])
    return Tokens(seen.objective, seen.codec, rows, seen.policy)
