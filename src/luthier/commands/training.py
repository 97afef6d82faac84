"""``train`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from luthier.run import Run

#: What a stopped run exits with, EX_TEMPFAIL of sysexits.h: it can be continued.
STOPPED = 75

RecipeName = Annotated[
    str | None, typer.Argument(metavar="RECIPE", hidden=True, show_default=False)
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", hidden=True, show_default=False)
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read all rows, though their files look unchanged.")
]


def chosen(recipe: str | None, overrides: list[str] | None) -> tuple[Path | None, list[str]]:
    """The recipe's file and the overrides; a first word with ``=`` is an override.

    Raises:
        RecipeError: no such recipe.
    """
    from luthier.ready import find_recipe

    words = list(overrides or ())
    if recipe is None or ("=" in recipe and not Path(recipe).exists()):
        return None, [*([] if recipe is None else [recipe]), *words]
    return find_recipe(recipe), words


def needed(recipe: str | None, overrides: list[str] | None) -> tuple[Path, list[str]]:
    """The same where there must be a recipe.

    Raises:
        RecipeError: there is none.
    """
    from luthier.core.errors import RecipeError

    path, words = chosen(recipe, overrides)
    if path is None:
        raise RecipeError(
            "no recipe given", cure="name a file, or one of `luthier list recipes`", code="usage"
        )
    return path, words


def train(
    recipe: RecipeName = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Continue a run; it brings its recipe."),
    ] = None,
    allow_inexact: Annotated[
        bool,
        typer.Option("--allow-inexact", help="Continue it though data or recipe have changed."),
    ] = False,
    verify: Verify = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train what a recipe describes, and measure before and after.

    RECIPE is a file or a ready recipe's name, KEY=VALUE changes it, as training.epochs=5.

    A finished run trains on with --resume RUN training.epochs=5.

    Exit status: 0 finished; 2 the recipe is wrong; 1 another error; 74 no room on the disk; 75
    stopped by a signal, can be continued.
    """
    choose = needed if resume is None else chosen
    path, words = choose(recipe, overrides)

    import luthier
    from luthier.commands import screen
    from luthier.quiet import hushed

    with hushed():
        run = luthier.train(
            path, words, resume=resume, allow_inexact=allow_inexact, verify=verify, quiet=quiet
        )
    if not run.finished:
        raise typer.Exit(STOPPED)
    if not quiet:
        made = screen.console()
        made.print()
        rows = [("report", str(run.folder.report))] if run.folder.report.is_file() else []
        screen.pairs(made, [*rows, *_uses(run)])


def _uses(run: Run) -> list[tuple[str, str]]:
    """How to ask what was trained, by the kind of its head."""
    from luthier.models.load import read_note
    from luthier.score import LABELS as SCORES

    last = run.folder.stages[-1] if run.folder.stages else run.folder
    head = read_note(last.model).get("head")
    if head is None:
        return [("talk to it", f"luthier chat {run.path}")]
    if head["kind"] == "masked_lm":
        return [("tune it", f"luthier train RECIPE model={run.path}")]
    if tuple(head["labels"]) in [(label,) for label in SCORES]:
        return [("ask it", f'luthier score {run.path} --prompt "a question" --answer "an answer"')]
    return [("ask it", f'luthier generate {run.path} --prompt "a text"')]


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", hidden=True)],
) -> None:
    """Measure a finished run again.

    Before and after, on the same held-out rows; its report is written anew.
    """
    import luthier
    from luthier.commands import screen
    from luthier.core.rundir import open_run
    from luthier.quiet import hushed

    folder = open_run(run)
    with hushed():
        figures = luthier.evaluate(run)
    made = screen.console()
    made.print()
    if not figures:
        made.print("no rows were held out, so there is nothing to measure on")
    if folder.report.is_file():
        screen.pairs(made, [("report", str(folder.report))])
