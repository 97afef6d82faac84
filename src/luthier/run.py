"""Recipe to parts to loop to evaluation to report: where everything meets."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier import environment
from luthier.assemble import assemble
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError, UserError
from luthier.core.recipe import Recipe
from luthier.core.rundir import RunDir, open_run, read_lines
from luthier.evaluation.stages import write_stages
from luthier.fit import fit
from luthier.judge import judge, save_result
from luthier.stages import train_stages

Say = Callable[[str], None]
Source = str | os.PathLike[str] | Mapping[str, Any] | Recipe


class Run:
    """A finished run: its folder, its figures, its model.

    >>> run = luthier.train("recipe.yaml")          # doctest: +SKIP
    >>> run.metrics["perplexity"]["after"]          # doctest: +SKIP
    3.1
    """

    def __init__(self, folder: RunDir) -> None:
        self.folder = folder

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def finished(self) -> bool:
        """Whether training ended and the result was written."""
        return self.folder.finished

    @property
    def evaluation(self) -> dict[str, Any]:
        """What ``evaluation.json`` says; empty where nothing was held out."""
        import json

        path = self.folder.evaluation
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def metrics(self) -> dict[str, Any]:
        """Name -> before, after, difference, interval, p_value."""
        found: dict[str, Any] = self.evaluation.get("metrics", {})
        return found

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The same prompts answered before and after."""
        return list(read_lines(self.folder.samples))

    @property
    def events(self) -> Iterator[dict[str, Any]]:
        """What was logged while training."""
        return read_lines(self.folder.events)

    def generate(self, prompt: str, **sampling: Any) -> str:
        """The tuned model's answer to one user message."""
        from luthier.chat import Chat

        answer: str = Chat.open(str(self.path)).answer(prompt, **sampling)
        return answer

    def __repr__(self) -> str:
        return f"Run('{self.path}')"


def train(
    source: Source | None = None,
    overrides: Sequence[str] = (),
    *,
    resume: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> Run:
    """Trains, evaluates and reports what a recipe describes.

    Args:
        source: a recipe file, a mapping, or a :class:`~luthier.core.recipe.Recipe`; rows may
            stand in it as a list of dicts, a DataFrame or a ``datasets.Dataset``.
        overrides: ``path.to.key=value``.
        resume: an unfinished run to continue; its own recipe is used.
        quiet: print nothing.

    Returns:
        The run. Where a signal stopped it, :attr:`Run.finished` is false and a checkpoint is kept.

    Raises:
        UserError: whatever of recipe, data or model is wrong.
    """
    say: Say = (lambda _line: None) if quiet else (lambda line: print(line, flush=True))
    if resume is not None:
        folder = open_run(resume)
        recipe = recipes.load(source if source is not None else folder.recipe, overrides)
        if recipe.stages:
            return _train_stages(recipe, folder, say, quiet, resumed=True)
        return _train_one(recipe, folder, say, quiet, resumed=True)
    if source is None:
        raise RecipeError("no recipe given")
    recipe = recipes.load(source, overrides)
    folder = RunDir(Path(recipe.output) if recipe.output else _dated())
    if recipe.stages:
        return _train_stages(recipe, folder, say, quiet, resumed=False)
    return _train_one(recipe, folder, say, quiet, resumed=False)


def evaluate(run: str | os.PathLike[str], *, quiet: bool = False) -> dict[str, Any]:
    """Measures a finished run again, before and after, and writes its report anew.

    Raises:
        UserError: no such run, or it is not finished.
    """
    folder = open_run(run)
    if folder.stages:
        for stage in folder.stages:
            evaluate(stage.path, quiet=quiet)
        write_stages(folder, folder.stages)
        return Run(folder).evaluation
    if not folder.model.is_dir():
        raise UserError(f"run '{run}' is not finished", cure=f"luthier train --resume {run}")
    say: Say = (lambda _line: None) if quiet else (lambda line: print(line, flush=True))
    recipe = recipes.load(folder.recipe)
    parts = assemble(recipe, say)
    judge(folder, parts, say)
    return Run(folder).evaluation


def _train_one(recipe: Recipe, folder: RunDir, say: Say, quiet: bool, *, resumed: bool) -> Run:
    first = environment.first_rank()
    if not first:
        say = _silent
    elif not resumed:
        _claim(folder)
    choices = environment.prepare(recipe.training)
    parts = assemble(recipe, say)
    outcome = fit(parts, folder, choices, say, quiet=quiet, resumed=resumed)
    if outcome.status == "stopped":
        say(f"stopped; continue with: luthier train --resume {folder.path}")
        return Run(folder)
    if outcome.main:
        save_result(parts, folder)
        judge(folder, parts, say)
        say(f"done: {folder.path}")
    return Run(folder)


def _train_stages(recipe: Recipe, folder: RunDir, say: Say, quiet: bool, *, resumed: bool) -> Run:
    """Each stage is a run of its own inside the folder and starts from the one before."""

    def train_one(one: Recipe, inner: RunDir, again: bool) -> Run:
        return _train_one(one, inner, say, quiet, resumed=again)

    train_stages(recipe, folder, say, train_one, claim=None if resumed else _claim)
    return Run(folder)


def _claim(folder: RunDir) -> None:
    """A fresh folder, or an empty one; never somebody's files.

    Raises:
        RecipeError: the folder holds something.
    """
    if folder.path.is_dir() and any(folder.path.iterdir()):
        if folder.is_run and not folder.finished:
            raise RecipeError(
                f"output '{folder.path}' holds an unfinished run",
                cure=f"continue it: luthier train --resume {folder.path}; or choose another output",
            )
        raise RecipeError(f"output '{folder.path}' is not empty", cure="choose another: output=DIR")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"cannot make output '{folder.path}': {error}") from None


def _silent(_line: str) -> None:
    """Ranks but the first say nothing."""


def _dated() -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / stamp
