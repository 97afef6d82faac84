"""A recipe with ``stages:``: runs in a row, each from the model of the one before.

Every stage is a run of its own inside the folder, ``1-KIND``, ``2-KIND`` …, with its own recipe,
checkpoints, model and report. That is what makes the whole restartable: a finished stage stays as
it is, an unfinished one continues from its newest checkpoint, and one that never got that far
starts afresh.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from luthier import environment
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.core.lock import refuse_held
from luthier.core.recipe import ModelSpec, Recipe
from luthier.core.rundir import RunDir, write_stage_list, write_text
from luthier.data.parts import read_parts
from luthier.data.sources import read
from luthier.engine.backend import Backend
from luthier.engine.recover import clear
from luthier.evaluation.stages import write_stages
from luthier.preview import Preview, Read, preview

Say = Callable[[str], None]
#: Trains one recipe into its folder, continuing from the newest checkpoint where told; false where
#: a signal came, so that nothing more must begin.
TrainOne = Callable[[Recipe, RunDir, bool], bool]
#: Takes the folder of the whole for this process alone, or refuses.
Hold = Callable[[RunDir], AbstractContextManager[None]]

#: Of a recipe's ``model:``, what still holds where a stage starts from the one before.
_LASTING = ("trust_remote_code", "offline", "dropout")


@dataclass(frozen=True)
class Stage:
    """One of the runs.

    Attributes:
        number: from 1.
        folder: its run folder.
        recipe: its whole recipe, the model of the stage before filled in.
        chained: whether it starts from the stage before.
    """

    number: int
    folder: RunDir
    recipe: Recipe
    chained: bool


def plan(recipe: Recipe, folder: RunDir) -> list[Stage]:
    """The stages of a recipe, each with the recipe of its own run.

    A stage starts from the model of the one before, unless its own ``model:`` names another.

    Raises:
        RecipeError: a stage is wrong.
    """
    planned: list[Stage] = []
    whole = zip(recipe.stages, recipes.stages(recipe), strict=True)
    for number, (own, values) in enumerate(whole, start=1):
        one = recipes.validate(values)
        inner = RunDir(folder.path / f"{number}-{one.objective.kind}")
        changes: dict[str, Any] = {"output": str(inner.path)}
        chained = bool(planned) and not _brings_model(own)
        if chained:
            lasting = {name: getattr(one.model, name) for name in _LASTING}
            changes["model"] = ModelSpec(name=_start(planned[-1].folder, inner), **lasting)
        planned.append(Stage(number, inner, one.model_copy(update=changes), chained))
    return planned


def alone(recipe: Recipe, stage: int = 1) -> Recipe:
    """A stage as a recipe by itself, with the model that the ones it continues began with.

    That model has the shape that the stage's own will have, which does not exist yet.

    Raises:
        RecipeError: there is no such stage.
    """
    if not recipe.stages:
        return recipe
    planned = _until(recipe, stage)
    begun = next(each for each in reversed(planned) if not each.chained)
    return planned[-1].recipe.model_copy(update={"model": begun.recipe.model})


def _until(recipe: Recipe, stage: int) -> list[Stage]:
    """The stages up to this one."""
    planned = plan(recipe, RunDir(Path(recipe.output or "runs")))
    if not 1 <= stage <= len(planned):
        raise RecipeError(f"no stage {stage}: the recipe has {len(planned)}", code="usage")
    return planned[:stage]


def begun_tokenizer(recipe: Recipe, stage: int = 1) -> Any:
    """The tokenizer that an earlier stage from scratch makes for this one, from its own text.

    ``None`` where a stage has a model, or a text, of its own.

    Raises:
        RecipeError: there is no such stage.
    """
    if not recipe.stages:
        return None
    planned = _until(recipe, stage)
    begun = next(each for each in reversed(planned) if not each.chained)
    if begun.number == stage or begun.recipe.model.architecture is None:
        return None
    return preview(begun.recipe).loaded.tokenizer


def previews(recipe: Recipe, read: Read = read_parts) -> Iterator[Preview]:
    """Every run of a recipe as it would begin, in order; see :func:`luthier.preview.preview`.

    A stage that continues one before has its model's shape and, from scratch, its tokenizer: the
    model itself does not exist yet.
    """
    if not recipe.stages:
        yield preview(recipe, read=read)
        return
    before: Preview | None = None
    for stage in plan(recipe, RunDir(Path(recipe.output or "runs"))):
        own, tokenizer = stage.recipe, None
        if stage.chained and before is not None:
            own = own.model_copy(update={"model": before.recipe.model})
            tokenizer = before.loaded.tokenizer if own.model.architecture else None
        before = preview(own, tokenizer, read)
        yield before


def train_stages(
    recipe: Recipe,
    folder: RunDir,
    say: Say,
    train_one: TrainOne,
    hold: Hold,
) -> None:
    """Trains what is not finished yet, in order, and writes the report of the whole.

    Where a signal stops a stage, the folder stays unfinished and can be continued.

    Args:
        recipe: with its ``stages``.
        folder: the folder of the whole.
        say: takes a line for the user.
        train_one: trains one stage.
        hold: takes the folder, or refuses it.

    Raises:
        UserError: whatever of recipe, data or model is wrong.
    """
    planned = plan(recipe, folder)
    _check_order(planned)
    _check_data(planned)
    environment.prepare(planned[0].recipe.training)
    backend = Backend(planned[0].recipe.training.device)
    if not backend.main:
        say = _silent
    with hold(folder):
        if backend.main:
            _begin(recipe, folder, planned, say)
        backend.barrier()
        if not _train_planned(planned, backend, say, train_one):
            say(f"or the whole run: luthier train --resume {folder.path}")
            return
        if backend.main:
            write_stages(folder, [stage.folder for stage in planned])
            say(f"done, all {len(planned)} stages: {folder.path}")
        backend.barrier()


def _train_planned(
    planned: Sequence[Stage], backend: Backend, say: Say, train_one: TrainOne
) -> bool:
    """Whether all are finished; a signal, be it at a stage's last moment, lets no other begin."""
    for stage in planned:
        if stage.folder.finished:
            continue
        _clear_start(stage, backend)
        say(f"stage {stage.number} of {len(planned)}: {stage.folder.path.name}")
        going_on = train_one(stage.recipe, stage.folder, _has_begun(stage.folder))
        gc.collect()  # a model is a web of references: free it before the next one loads
        backend.barrier()  # the first rank alone measures and writes
        if backend.agree(not going_on) or not stage.folder.finished:
            return False
    return True


def _begin(recipe: Recipe, folder: RunDir, planned: Sequence[Stage], say: Say) -> None:
    """Recipe, environment and list of stages; what is finished already is named."""
    if not folder.environment.is_file():
        environment.write_stages_note(folder)
    write_stage_list(folder, [stage.folder for stage in planned])
    write_text(folder.recipe, recipe.to_yaml())  # last: what has it is a run, and can be resumed
    for stage in planned:
        if stage.folder.finished:
            say(f"stage {stage.number} of {len(planned)}: {stage.folder.path.name}, finished")
            if changed := _changed(stage):
                say(f"  it stays as it is: changed since, without effect: {', '.join(changed)}")
    if not all(stage.folder.finished for stage in planned):
        folder.card.unlink(missing_ok=True)


def _clear_start(stage: Stage, backend: Backend) -> None:
    """A stage that stopped before its first checkpoint has nothing to continue from."""
    if backend.main and stage.folder.path.exists():
        refuse_held(stage.folder)
        clear(stage.folder)  # a killed save may have left its checkpoint under another name
        if not _has_begun(stage.folder):
            shutil.rmtree(stage.folder.path)
    backend.barrier()


def _has_begun(folder: RunDir) -> bool:
    """Whether there are checkpoints, damaged ones included: those are no reason to start anew."""
    return bool(folder.saved() or folder.set_aside())


def _start(before: RunDir, stage: RunDir) -> str:
    """The stage before as a model's name, spelled as when the stage was begun.

    A resumed run must find the very recipe that it began with.
    """
    absolute = before.path.resolve()
    if stage.recipe.is_file():
        spelled = recipes.load(stage.recipe).model.name
        if spelled is not None and Path(spelled).resolve() == absolute:
            return str(spelled)
    return str(absolute)


def _brings_model(own: Mapping[str, Any]) -> bool:
    model = own.get("model")
    if isinstance(model, Mapping):
        return bool(model.get("name") or model.get("architecture"))
    return model is not None


def _check_order(planned: Sequence[Stage]) -> None:
    """No stage may be older than the one that it starts from.

    Raises:
        RecipeError: a stage holds results while the one before has to be trained.
    """
    for before, after in pairwise(planned):
        kept = after.folder.finished or after.folder.saved()
        if after.chained and kept and not before.folder.finished:
            raise RecipeError(
                f"'{after.folder.path}' holds results, but '{before.folder.path}', which it "
                "starts from, is not finished",
                cure=f"to train both, remove '{after.folder.path}' first",
                code="stage-order",
            )


def _check_data(planned: Sequence[Stage]) -> None:
    """A glance at each later stage's files: one that is missing must not show after hours.

    Raises:
        DataError: a source that cannot be read, or whose first row is broken.
    """
    for stage in planned[1:]:
        data = stage.recipe.data
        for source in (*(each.source for each in data.readings()), data.validation):
            named = source if isinstance(source, list | tuple) else [source]
            paths = all(isinstance(name, str | os.PathLike) for name in named)
            if named and paths and not stage.folder.finished:
                read(source, limit=1, malformed=data.malformed, timeout=data.timeout)


def _changed(stage: Stage) -> list[str]:
    """Parts of a finished stage's recipe that differ from what is asked for now."""
    old, new = recipes.load(stage.folder.recipe).resolved(), stage.recipe.resolved()
    if stage.chained:
        old["model"] = new["model"]
    return [name for name in new if name != "output" and old.get(name) != new[name]]


def _silent(_line: str) -> None:
    """Ranks but the first say nothing."""
