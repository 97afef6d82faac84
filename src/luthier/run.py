"""Recipe to parts to loop to evaluation to report: where everything meets."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from luthier import environment
from luthier.assemble import assemble
from luthier.core import disk
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError, UserError
from luthier.core.lock import hold, refuse_held
from luthier.core.recipe import Recipe
from luthier.core.rundir import RunDir, open_run, read_lines
from luthier.engine.recover import clear
from luthier.engine.watch import Stop, StopNowError, signals
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
    allow_inexact: bool = False,
    verify: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains, evaluates and reports what a recipe describes.

    Args:
        source: a recipe file, a mapping, or a :class:`~luthier.core.recipe.Recipe`; rows may
            stand in it as a list of dicts, a DataFrame or a ``datasets.Dataset``.
        overrides: ``path.to.key=value``.
        resume: a run to continue with its own recipe; ``training.epochs=5`` trains on where it
            was finished.
        allow_inexact: continue it though data or recipe are not what they were; what changed is
            said.
        verify: read all rows though their files look as when they were read before, and say what
            changed.
        quiet: print nothing.

    Returns:
        The run. Where a signal stopped it, :attr:`Run.finished` is false and it can be resumed.

    Raises:
        UserError: whatever of recipe, data or model is wrong.
    """
    say: Say = (lambda _line: None) if quiet else (lambda line: print(line, flush=True))
    how = _How(say, quiet, resume is not None, allow_inexact, verify)
    if resume is not None:
        folder = open_run(resume)
        recipe = recipes.load(source if source is not None else folder.recipe, overrides)
    elif source is None:
        raise RecipeError("no recipe given")
    elif allow_inexact:
        raise RecipeError("--allow-inexact has no meaning without --resume", code="usage")
    else:
        recipe = recipes.load(source, overrides)
        folder = RunDir(Path(recipe.output) if recipe.output else _dated())
    try:
        with signals() as stop:
            if recipe.stages:
                return _train_stages(recipe, folder, how, stop)
            return _train_one(recipe, folder, how, stop)
    except StopNowError:  # on the very doorstep
        return Run(folder)


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
    with hold(folder):
        parts = assemble(recipes.load(folder.recipe), say, vetting=False)
        judge(folder, parts, say)
    return Run(folder).evaluation


@dataclass(frozen=True)
class _How:
    """What the caller asked for, beside the recipe."""

    say: Say
    quiet: bool
    resumed: bool
    allow_inexact: bool
    verify: bool


def _train_one(recipe: Recipe, folder: RunDir, how: _How, stop: Stop) -> Run:
    say = how.say if environment.first_rank() else _silent
    try:
        with _held(folder, fresh=not how.resumed):
            if how.resumed and _is_done(recipe, folder):
                say(f"'{folder.path}' is finished; training.epochs=N or max_steps=N trains on")
                return Run(folder)
            where = _trained_and_judged(recipe, folder, replace(how, say=say), stop)
    except StopNowError:
        where = ""
    if where is None:
        say(f"done: {folder.path}")
    elif folder.is_run:
        say(f"stopped{where}; continue with: luthier train --resume {folder.path}")
    else:
        say("stopped before anything was written")
    return Run(folder)


def _trained_and_judged(recipe: Recipe, folder: RunDir, how: _How, stop: Stop) -> str | None:
    """The whole way; where a signal ended it, at which point."""
    choices = environment.prepare(recipe.training)
    parts = assemble(recipe, how.say, verify=how.verify)
    cure = f"make room, then: luthier train --resume {folder.path}"
    with disk.room_for(f"run '{folder.path}'", folder.path, cure):
        outcome = fit(
            parts,
            folder,
            choices,
            how.say,
            quiet=how.quiet,
            resumed=how.resumed,
            allow_inexact=how.allow_inexact,
        )
        if outcome.status == "stopped":
            return ""
        if outcome.main:
            with stop.patiently():
                save_result(parts, folder)
            if not stop.asked:
                judge(folder, parts, how.say)
    if stop.asked and not folder.finished:
        return " after the last step, before the result was measured"
    return None


def _train_stages(recipe: Recipe, folder: RunDir, how: _How, stop: Stop) -> Run:
    """Each stage is a run of its own inside the folder and starts from the one before."""

    def train_one(one: Recipe, inner: RunDir, again: bool) -> bool:
        _train_one(one, inner, replace(how, resumed=again), stop)
        return not stop.asked

    # Only once the recipe was looked at is the folder taken.
    taken = partial(_held, fresh=not how.resumed)
    try:
        train_stages(recipe, folder, how.say, train_one, taken)
    except StopNowError:
        how.say(f"stopped; continue with: luthier train --resume {folder.path}")
    return Run(folder)


def _is_done(recipe: Recipe, folder: RunDir) -> bool:
    """Whether a run is finished and its recipe asks for nothing else."""
    return folder.finished and folder.recipe.read_text(encoding="utf-8") == recipe.to_yaml()


@contextmanager
def _held(folder: RunDir, *, fresh: bool) -> Iterator[None]:
    """The run folder, made if ``fresh``, for this process alone.

    Raises:
        RecipeError: another process is at it, or a fresh run would meet somebody's files.
    """
    if not environment.first_rank():
        yield
        return
    refuse_held(folder)
    made = fresh and not folder.path.exists()
    if fresh:
        _claim(folder)
    try:
        with hold(folder):
            clear(folder)
            yield
    finally:
        if made:
            with suppress(OSError):  # it holds something, as it should
                folder.path.rmdir()


def _claim(folder: RunDir) -> None:
    """A fresh folder, or an empty one; never somebody's files.

    Raises:
        RecipeError: the folder holds something.
    """
    if folder.path.is_dir() and not _is_untouched(folder):
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


def _is_untouched(folder: RunDir) -> bool:
    """Empty, or with what a run leaves that was killed before it was one."""
    left = {folder.lock, folder.environment, folder.stage_list, *folder.leftovers()}
    return left.issuperset(folder.path.iterdir())


def _silent(_line: str) -> None:
    """Ranks but the first say nothing."""


def _dated() -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / stamp
