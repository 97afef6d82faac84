"""``data report``: a recipe's data on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthier.commands.training import Overrides, RecipeName, needed


def report(
    recipe: RecipeName = None,
    overrides: Overrides = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page.", show_default=True)
    ] = Path("data-report.html"),
    group: Annotated[
        str, typer.Option(metavar="COLUMN", help="Compare rows by what stands in this column.")
    ] = "",
    stage: Annotated[int, typer.Option(min=1, metavar="N", help="Of a recipe with stages.")] = 1,
    everything: Annotated[
        bool, typer.Option("--all", help="Put every row into tokens, however many there are.")
    ] = False,
) -> None:
    """Write a page on data: findings, lengths, balance, leaks.

    RECIPE is a file or a ready recipe's name, KEY=VALUE changes it. No weight is loaded.

    Exit status: 0 the page is written, whatever it says; 2 wrong usage; 1 another error.
    """
    path, words = needed(recipe, overrides)

    from luthier.commands import screen
    from luthier.core import recipe as recipes
    from luthier.core.rundir import write_text
    from luthier.data_report import page
    from luthier.data_report import report as look
    from luthier.quiet import hushed

    loaded = recipes.load(path, words)
    with screen.passing(quiet=False) as progress, hushed():
        found = look(loaded, group=group, stage=stage, everything=everything, progress=progress)
    write_text(output, page(found))
    made = screen.console()
    made.print(found.verdict, style="bold red" if found.errors else "green")
    made.print(f"written: {output}", soft_wrap=True)
