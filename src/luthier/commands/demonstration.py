"""``demo``."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from luthier.commands.training import STOPPED


def demo(
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The run folder.", show_default="runs/demo"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Tune the bundled model in three minutes, and compare.

    LoRA on builtin:nano with a shop's questions and answers, then figures and answers of both
    models side by side.
    """
    from luthier.quiet import hushed

    with hushed():
        run = import_module("luthier.demo.command").run(output, quiet)
    if not run.finished:
        raise typer.Exit(STOPPED)
