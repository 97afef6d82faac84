"""``combine``."""

from __future__ import annotations

from typing import Annotated

import typer


def combine(
    models: Annotated[list[str], typer.Argument(metavar="RUN RUN…", hidden=True)],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Where; must not exist yet.")
    ],
    weights: Annotated[
        str | None, typer.Option(metavar="W,W…", help="One a model.", show_default="even")
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="WAY", help="average or ties; adapters are summed.")
    ] = "average",
    keep: Annotated[
        float | None, typer.Option(metavar="SHARE", help="ties: largest changes that count (0.2).")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(metavar="X", help="ties: factor on the change (1).")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="ties: what all were tuned from.")
    ] = None,
) -> None:
    """Make one model of several that were tuned from the same one.

    Full weights are averaged (a model soup) or combined by TIES. LoRA adapters on one base are
    summed exactly into one adapter. The result loads as any model.
    """
    from luthier.combine import combine as make
    from luthier.commands import screen
    from luthier.core.errors import RecipeError
    from luthier.quiet import hushed

    try:
        shares = None if weights is None else [float(each) for each in weights.split(",")]
    except ValueError:
        raise RecipeError(f"'{weights}' is no list of numbers", "--weights") from None
    settings = {"kind": method, "keep": keep, "scale": scale}
    given = {key: value for key, value in settings.items() if value is not None}
    with hushed():
        found = make(models, output, weights=shares, method=given, base=base)
    made = screen.console()
    made.print()
    screen.pairs(
        made,
        [
            ("combined", str(found.folder)),
            ("what", f"{found.kind}, {found.tensors:,} tensors of {len(models)} models"),
            ("weights", ", ".join(f"{share:g}" for share in found.weights)),
        ],
    )
