"""``data prepare``: data made ready without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthier.commands.training import Overrides, RecipeName, Verify, needed


def prepare(
    recipe: RecipeName = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write the rows of each side as well."),
    ] = None,
    verify: Verify = False,
) -> None:
    """Clean, split and tokenise data without training.

    RECIPE is a file or a ready recipe's name, KEY=VALUE changes it. What was done to how
    many rows is said. The tokens lie in the cache then, so that training begins at once.
    """
    path, words = needed(recipe, overrides)

    from luthier.commands import screen
    from luthier.core import recipe as recipes
    from luthier.preparing import prepare as ready
    from luthier.quiet import hushed

    made = screen.console()
    with hushed():
        found = ready(recipes.load(path, words), output, verify=verify)
    for number, one in enumerate(found, start=1):
        if len(found) > 1:
            screen.heading(made, f"Stage {number} of {len(found)}")
        for line in one.said:
            screen.paragraph(made, line, indent=0)
        for file in one.files:
            made.print(f"written: {file}", soft_wrap=True)
