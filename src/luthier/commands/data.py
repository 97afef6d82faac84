"""``data``: rows in the light, and what is wrong with them, before a step is spent on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.commands import preparing, reporting, showing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from luthier.core.findings import Finding
    from luthier.data.check import Progress, Report

#: Under a finding's place.
_INDENT = 11

app = typer.Typer(help="Look at data, and check it, before training on it.", no_args_is_help=True)


@app.command()
def check(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]...", hidden=True, show_default=False)
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="Check rows as this recipe would use them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for tools.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes to share the work; all cores unless set."),
    ] = None,
) -> None:
    """Find what is wrong with data: files, folders or hub ids.

    Files named train, valid, dev or test are compared as splits, others each with each.

    With --recipe its format, template, tokenizer and split are used, and its own data where no
    SOURCE is named.

    Exit status: 0 no errors (there may be warnings); 1 errors; 2 wrong usage.
    """
    from luthier.commands import screen
    from luthier.core.errors import RecipeError

    if not sources and recipe is None:
        raise RecipeError(
            "nothing to check", cure="name a file: luthier data check train.jsonl", code="usage"
        )
    with screen.passing(quiet=as_json) as progress:
        reports = _reports(sources or [], recipe, workers, progress)
    if as_json:
        _print_json(reports)
    else:
        _print(reports)
    if any(report.findings.errors for report in reports):
        raise typer.Exit(1)


app.command()(preparing.prepare)
app.command()(showing.show)
app.command()(reporting.report)


@app.command()
def codes() -> None:
    """List every code that a check can find."""
    from luthier.commands import screen
    from luthier.data.check import codes as known

    made = screen.console()
    for severity in ("error", "warning"):
        screen.heading(made, f"{severity.capitalize()}s")
        screen.pairs(made, [(c.name, c.title) for c in known() if c.severity == severity])


def _reports(
    sources: list[str], recipe: str | None, workers: int | None, progress: Progress
) -> list[Report]:
    if recipe is None:
        from luthier.core.workers import processes
        from luthier.data.check import Ask, sides
        from luthier.data.check import check as look

        found, known = sides(sources)
        ask = Ask(found, known, workers=workers or processes("auto"))
        return [look(ask, progress)]
    from luthier.checking import check_recipe
    from luthier.core import recipe as recipes
    from luthier.quiet import hushed
    from luthier.ready import find_recipe

    with hushed():
        chosen = [] if workers is None else [f"data.workers={workers}"]
        return check_recipe(recipes.load(find_recipe(recipe), chosen), sources, progress)


def _print_json(reports: Sequence[Report]) -> None:
    import json

    from luthier.commands import screen

    plain: Any = [report.plain() for report in reports]
    screen.answer_only(
        json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, ensure_ascii=False)
    )


def _print(reports: Sequence[Report]) -> None:
    from luthier.commands import screen

    made = screen.console()
    for number, report in enumerate(reports, start=1):
        if len(reports) > 1:
            screen.heading(made, f"Stage {number} of {len(reports)}")
        for kept, total in report.findings.groups():
            _print_group(made, kept, total)
        if report.findings.totals:
            made.print()
        _print_summary(made, report)


def _print_group(made: Console, kept: Sequence[Finding], total: int) -> None:
    """Findings of one code: a line each for tools; on a terminal wrapped, a shared cure once."""
    from luthier.commands import screen

    for number, finding in enumerate(kept, start=1):
        if not made.is_terminal:
            made.print(str(finding), soft_wrap=True)
            continue
        _print_finding(made, finding)
        if number == len(kept) or kept[number].cure != finding.cure:
            screen.paragraph(made, f"cure: {finding.cure}", indent=_INDENT, style="dim")
    if total > len(kept):
        made.print(f"{' ' * _INDENT}… and {total - len(kept):,} more {kept[0].code}")


def _print_finding(made: Console, finding: Finding) -> None:
    from rich.text import Text

    from luthier.commands import screen

    style = "bold red" if finding.severity == "error" else "yellow"
    if len(finding.head) + len(finding.message) + 2 <= made.width:
        made.print(Text.assemble((finding.head, style), "  ", finding.message))
        return
    made.print(Text(finding.head, style=style), soft_wrap=True)
    screen.paragraph(made, finding.message, indent=_INDENT)


def _print_summary(made: Console, report: Report) -> None:
    from luthier.commands import screen
    from luthier.core.words import many

    found = report.findings
    for each in report.sources:
        understood = each.format or "not understood"
        faulty = f", {each.faulty:,} cannot be read" if each.faulty else ""
        rows = f"{many(each.rows + each.faulty, 'row')}{faulty}; {understood}"
        screen.paragraph(made, f"{each.name}: {rows}", indent=0)
    verdict = f"{many(found.errors, 'error')}, {many(found.warnings, 'warning')}"
    style = "bold red" if found.errors else "green"
    made.print(f"{verdict} in {many(report.rows, 'row')}, {report.seconds:.1f} s", style=style)
