"""Data checked before a step is spent: files by themselves, or as a recipe would use them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from luthier.core import kinds
from luthier.core.contracts import Objective
from luthier.core.contracts_tasks import Tasked
from luthier.core.errors import RecipeError
from luthier.core.recipe import Recipe
from luthier.core.records import Record
from luthier.core.workers import processes
from luthier.data.check import Ask, Progress, Report, check, sides, silent
from luthier.data.checks._base import TRAIN, Tokens
from luthier.data.parts import Part
from luthier.preview import dressed
from luthier.stages import alone, begun_tokenizer


def check_recipe(
    recipe: Recipe,
    values: Sequence[str] = (),
    progress: Progress = silent,
    *,
    by_row: bool = False,
    tokenizer: Any = None,
) -> list[Report]:
    """The data of a recipe, a report a stage; no weight is loaded.

    Args:
        recipe: its objective, format, columns, template, tokenizer and split are used.
        values: sources to check in place of the recipe's own.
        progress: told how far it is.
        by_row: whether the codes found at each row are kept.
        tokenizer: of a model from scratch, where an earlier stage has made it.

    Raises:
        UserError: no such model, or nothing to check.
    """
    found = []
    if not recipe.stages:
        for one in by_task(recipe, values):
            found.append(check(replace(_asked(one, values, tokenizer), by_row=by_row), progress))
        return found
    for number in range(1, len(recipe.stages) + 1):
        made = begun_tokenizer(recipe, number)
        for one in by_task(alone(recipe, number), values):
            found.append(check(replace(_asked(one, values, made), by_row=by_row), progress))
    return found


def by_task(recipe: Recipe, values: Sequence[str] = ()) -> list[Recipe]:
    """The recipe of each task alone, where there are several; else the recipe itself.

    Raises:
        RecipeError: files are named, which say no task.
    """
    objective: Objective = kinds.build("objectives", recipe.objective)
    if not isinstance(objective, Tasked):
        return [recipe]
    if values:
        raise RecipeError(
            "the recipe has several tasks, and a file says none",
            cure="check the recipe's own rows, or the file without the recipe",
            code="usage",
        )
    made = []
    for name, task in objective.tasks.items():
        entries = [entry for entry in recipe.data.mixture or () if entry.task == name]
        mixture = tuple(entry.model_copy(update={"task": None}) for entry in entries)
        data = recipe.data.model_copy(update={"mixture": mixture})
        made.append(recipe.model_copy(update={"objective": task.config, "data": data}))
    return made


def _asked(recipe: Recipe, values: Sequence[str], tokenizer: Any) -> Ask:
    spec = recipe.data
    objective: Objective = kinds.build("objectives", recipe.objective)
    held_out = float(spec.validation) if isinstance(spec.validation, int | float) else 0.0
    asked = Ask(
        [],
        True,
        spec.format,
        spec.columns,
        objective.records,
        spec.limit,
        held_out,
        recipe.training.seed,
        spec.group,
        spec.clean,
        tuple(getattr(recipe.objective, "classes", None) or ()),
        lambda records: _tokens(recipe, objective, records, tokenizer),
        spec.timeout,
        workers=processes(spec.workers),
    )
    if values:
        found, known = sides(values)
        if len(found) == 1:
            found, known = [(TRAIN, found[0][1])], True
        return replace(asked, sides=found, splits_known=known)
    readings = spec.readings()
    if not readings:
        raise RecipeError(
            "the recipe names no rows to check", cure="set data.train, or name files to check"
        )
    named: list[tuple[str, Any]] = [(TRAIN, how.source) for how in readings]
    if spec.validation is not None and not isinstance(spec.validation, int | float):
        named.append(("validation", spec.validation))
        readings = (*readings, spec.reading(spec.validation))
    return replace(asked, sides=named, readings=readings if spec.mixture else ())


def _tokens(
    recipe: Recipe, objective: Objective, records: Sequence[Record], tokenizer: Any
) -> Tokens:
    """The recipe's path to tokens, its objective settled on the training records."""
    content = hashlib.sha256()
    for record in records:
        content.update(repr(record).encode("utf-8", "replace"))
    part = Part(tuple(records), content.hexdigest(), 0, ())
    seen = dressed(recipe, objective, part, tokenizer)
    trunk: Any = seen.loaded.model.trunk
    rows = int(trunk.get_input_embeddings().weight.shape[0])
    return Tokens(seen.objective, seen.codec, rows, seen.policy)
