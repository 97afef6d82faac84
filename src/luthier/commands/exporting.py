"""``export``."""

from __future__ import annotations

from typing import Annotated

import typer


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", hidden=True)],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="What to make: merged.")],
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where; must not exist yet.", show_default="RUN-TARGET"),
    ] = None,
) -> None:
    """Write a run's model in another shape, proved to be the same.

    merged: full float32 weights that load with plain transformers. Golden prompts are computed by
    the run's own model and by the export; where their logits differ by more than 1e-4 the export
    is refused and nothing is left behind. A run on a quantised base is merged into the base in
    full, and how far that is from the model that was trained is said.
    """
    from luthier.commands import screen
    from luthier.export import export as write
    from luthier.quiet import hushed

    with hushed():
        found = write(run, to, output)
    made = screen.console()
    made.print()
    rows = [
        ("export", str(found.folder)),
        (
            "difference",
            f"{found.difference:.1e} at most, in logits on {found.prompts} golden prompts "
            f"({found.tolerance:.0e} is allowed)",
        ),
    ]
    if found.rounding is not None:
        gap = found.rounding
        rows.append(
            (
                "rounding",
                f"the base is no longer quantised: {gap.divergence:.4f} nats a token from the "
                f"model that was trained, {100 * gap.agreement:.1f} % of {gap.tokens:,} likeliest "
                "tokens the same",
            )
        )
    screen.pairs(made, rows)
