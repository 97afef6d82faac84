"""``data show``: one row as the model reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.commands.training import Overrides, RecipeName, needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.text import Text

    from luthier.show import Branch, Shown

_LEARNED = "bold green"
#: What stands for the end of a line, which is a token like any other.
_RETURN = "⏎"


def show(
    recipe: RecipeName = None,
    overrides: Overrides = None,
    row: Annotated[
        str | None,
        typer.Option(metavar="LINE", help="Its line, or FILE:LINE; the first row if unset."),
    ] = None,
    stage: Annotated[int, typer.Option(min=1, metavar="N", help="Of a recipe with stages.")] = 1,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page instead of printing.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Every token's number as well.")] = False,
) -> None:
    """Show a row as the model reads it, in tokens.

    RECIPE is a file or a ready recipe's name, KEY=VALUE changes it. No weight is loaded.
    """
    path, words = needed(recipe, overrides)

    from luthier.commands import screen
    from luthier.core import recipe as recipes
    from luthier.core.rundir import write_text
    from luthier.quiet import hushed
    from luthier.show import page
    from luthier.show import show as look

    made = screen.console()
    with hushed():
        found = look(recipes.load(path, words), row, stage)
    if html is not None:
        write_text(html, page(found))
        made.print(f"written: {html}")
        return
    _print(made, found, ids)


def _print(made: Console, found: Shown, ids: bool) -> None:
    from luthier.commands import screen

    label = f", label: {found.label}" if found.label else ""
    made.print(f"{found.origin}: {found.kind}, {found.side}{label}", style="bold", soft_wrap=True)
    for line in (*found.said, *found.notices):
        screen.paragraph(made, line, style="dim")
    screen.heading(made, "Record")
    screen.pairs(made, list(_fields(found)))
    colours = screen.colourful(made)
    how = "what is learned is green" if colours else "what is learned stands in [[ ]]"
    for number, piece in enumerate(found.pieces, 1):
        window = f", window {number} of {len(found.pieces)}" if len(found.pieces) > 1 else ""
        screen.heading(made, f"Tokens{window}; {how}")
        for one in piece:
            depth = 2 * (1 + _depth(piece, one))
            after = "" if one.parent is None else f", after segment {one.parent}"
            made.print(
                f"{' ' * depth}segment {one.number}{after}: {one.size:,} tokens, "
                f"{one.learned:,} learned",
                style="dim",
            )
            painted = _painted(one, colours, ids)
            for text in painted.wrap(made, made.width - depth - 2, tab_size=4):
                text.rstrip()
                text.pad_left(depth + 2)
                made.print(text, soft_wrap=True)


def _fields(found: Shown) -> Iterator[tuple[str, str]]:
    """Names and texts; of a conversation the roles and what they say."""
    for name, value in found.fields.items():
        if not isinstance(value, list | tuple):
            yield name, str(value)
            continue
        for number, item in enumerate(value):
            if isinstance(item, dict) and "role" in item:
                yield str(item["role"]), str(item["content"])
            else:
                yield (name if number == 0 else ""), str(item)


def _depth(piece: tuple[Branch, ...], one: Branch) -> int:
    depth = 0
    while one.parent is not None:
        one, depth = piece[one.parent], depth + 1
    return depth


def _painted(one: Branch, colours: bool, ids: bool) -> Text:
    from rich.text import Text

    text = Text()
    learned = False
    for token in one.tokens:
        if not colours and token.learned != learned:
            text.append("[[" if token.learned else "]]")
        learned = token.learned
        style: Any = (_LEARNED if token.learned else "dim") if colours else ""
        text.append(token.text.replace("\n", f"{_RETURN}\n"), style=style)
        if ids:
            text.append(f"({' '.join(map(str, token.ids))}) ", style="dim" if colours else "")
    if learned and not colours:
        text.append("]]")
    return text
