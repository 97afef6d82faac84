"""``recipe schema``, ``recipe check`` and ``recipe import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthier.commands.training import Overrides, RecipeName, needed

app = typer.Typer(help="Check a recipe, import one, print the JSON Schema.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema that editors check recipes with."""
    import json

    from luthier.commands import screen
    from luthier.core import recipe

    screen.answer_only(json.dumps(recipe.schema(), indent=2, ensure_ascii=False))


@app.command()
def check(recipe: RecipeName = None, overrides: Overrides = None) -> None:
    """Validate a recipe and print it with every default written out."""
    path, words = needed(recipe, overrides)

    from luthier.commands import screen
    from luthier.core import recipe as recipes

    found = recipes.load(path, words)
    screen.answer_only(found.to_yaml().rstrip("\n"))
    screen.notice(f"{path} is valid")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Its YAML.", show_default=False)],
) -> None:
    """Turn an Axolotl or LLaMA-Factory configuration into a recipe.

    What has no equal here is listed in comments: luthier recipe import config.yml > recipe.yaml
    """
    from luthier.commands import screen
    from luthier.importing import imported

    screen.answer_only(imported(file))
