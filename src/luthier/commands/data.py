"""``luthier data``: rows in the light, before a single step is spent on them."""

from __future__ import annotations

import typer

from luthier.commands import showing

app = typer.Typer(
    help="Look at data before anything is trained.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(showing.show)
