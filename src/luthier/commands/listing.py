"""``list``: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

#: What can be listed -> its folder in the package.
_FOLDERS = {
    "objectives": "objectives",
    "methods": "methods",
    "metrics": "metrics",
    "rewards": "rewards",
    "formats": "data/formats",
    "cleaners": "data/cleaners",
    "augmenters": "data/augmenters",
    "combinations": "combine",
}
_ALL = (*_FOLDERS, "recipes")


def listing(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT",
            hidden=True,
            show_default=False,
        ),
    ] = None,
) -> None:
    """List objectives, methods, rewards, formats and the like.

    WHAT is one of these words; all of them are listed without it.
    """
    from luthier.commands import screen
    from luthier.core.errors import RecipeError, nearest

    if what is not None and what not in _ALL:
        raise RecipeError(f"nothing to list by the name '{what}': {nearest(what, _ALL)}")
    made = screen.console()
    for number, name in enumerate([what] if what else _ALL):
        if number:
            made.print()
        if what is None:
            made.print(name.capitalize(), style="dim")
        screen.pairs(made, _entries(name) or [("(none)", "")], names="bold")


def _entries(name: str) -> list[tuple[str, str]]:
    if name == "recipes":
        from luthier import ready

        return [(each, ready.summary(each)) for each in ready.names()]
    from luthier.core import kinds

    folder = _FOLDERS[name]
    return [(kind, kinds.summary(folder, kind).replace("``", "")) for kind in kinds.names(folder)]
