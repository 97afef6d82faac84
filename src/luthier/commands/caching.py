"""``cache``: what is kept to save time, and how to be rid of it."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Show, trim or clear what is kept only to save time.",
    invoke_without_command=True,
)


@app.callback()
def show(context: typer.Context) -> None:
    """Show the cache's place, entries and sizes."""
    if context.invoked_subcommand is not None:
        return
    from collections import defaultdict

    from luthier.commands import screen
    from luthier.core import cache
    from luthier.core.words import size

    made = screen.console()
    known = cache.entries()
    kinds: dict[str, list[int]] = defaultdict(list)
    for entry in known:
        kinds[entry.kind].append(entry.size)
    bound = cache.bound()
    rows = [("place", str(cache.folder()))]
    rows += [(kind, _words(sizes)) for kind, sizes in sorted(kinds.items())]
    rows.append(("together", f"{size(sum(entry.size for entry in known))} of {size(bound)}"))
    screen.pairs(made, rows)


@app.command()
def clear() -> None:
    """Delete everything in the cache."""
    from luthier.core import cache

    _freed(cache.clear())


@app.command()
def trim(
    to: Annotated[str, typer.Option("--to", metavar="SIZE", help="What may stay, as 5GB.")],
) -> None:
    """Delete what was not used for longest, until the rest fits."""
    from luthier.core import cache
    from luthier.core.words import parse_size

    _freed(cache.trim(parse_size(to)))


def _freed(count: int) -> None:
    from luthier.commands import screen
    from luthier.core.words import size

    screen.console().print(f"freed {size(count)}" if count else "nothing to delete")


def _words(sizes: list[int]) -> str:
    from luthier.core.words import size

    return f"{len(sizes):,} {'entry' if len(sizes) == 1 else 'entries'}, {size(sum(sizes))}"
