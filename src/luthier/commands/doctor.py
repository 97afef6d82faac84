"""``doctor``: what this machine offers to training, and what stands in its way."""

from __future__ import annotations


def doctor() -> None:
    """Show what this machine offers, and what is in the way.

    Versions, devices, threads, free memory and disk, the cache, optional extras.
    """
    from rich.text import Text

    from luthier.commands import screen
    from luthier.doctor import examine

    made = screen.console()
    sections = examine()
    wide = max(len(fact.name) for facts in sections.values() for fact in facts)
    for number, (title, facts) in enumerate(sections.items()):
        if number:
            made.print()
        made.print(title, style="bold")
        for fact in facts:
            style = "yellow" if fact.trouble else ""
            made.print(
                Text.assemble((f"  {fact.name:<{wide}}  ", "dim"), (fact.value, style)),
                soft_wrap=True,
            )
    troubles = [fact for facts in sections.values() for fact in facts if fact.trouble]
    made.print()
    if not troubles:
        made.print("Nothing stands in the way.", style="green")
    for fact in troubles:
        made.print(Text.assemble(("warning ", "bold yellow"), f"{fact.name}: {fact.trouble}"))
        made.print(f"  cure: {fact.cure}", style="dim")
