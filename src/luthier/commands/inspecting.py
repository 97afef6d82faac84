"""``inspect``: a recipe in the light, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.commands.training import Overrides, RecipeName, needed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import BaseModel
    from rich.console import Console
    from rich.text import Text

    from luthier.core.errors import Fault
    from luthier.core.recipe import Recipe
    from luthier.core.records import Example
    from luthier.inspection import Inspection, Survey

#: Faults of one sort named before the others are counted.
_NAMED = 5


def inspect(
    recipe: RecipeName = None,
    overrides: Overrides = None,
    rows: Annotated[
        int, typer.Option(min=0, metavar="N", help="Examples to show.", show_default=True)
    ] = 3,
    everything: Annotated[
        bool, typer.Option("--all", help="Measure every row, however many there are.")
    ] = False,
) -> None:
    """Show what a recipe would do, without training.

    RECIPE is a file or a ready recipe's name, KEY=VALUE changes it, as training.epochs=5.

    Data, lengths, what would be cut, parameters, memory, steps. No weight is loaded. What training
    would refuse is counted and named.
    """
    path, words = needed(recipe, overrides)

    from luthier.commands import screen
    from luthier.core import recipe as recipes
    from luthier.inspection import inspect as look
    from luthier.quiet import hushed

    made = screen.console()
    loaded = recipes.load(path, words)
    made.print("Recipe", style="bold")
    for line in _resolved(loaded):
        made.print(line, soft_wrap=True)
    with hushed():
        found = look(loaded, rows=rows, everything=everything)
    for number, one in enumerate(found, start=1):
        if loaded.stages:
            screen.heading(made, f"Stage {number} of {len(found)}: {one.recipe.objective.kind}")
        _show(made, one)
    _verdict(made, found, [str(recipe), *words])


def _show(made: Console, one: Inspection) -> None:
    from luthier.commands import screen
    from luthier.commands.lengths import histogram

    screen.heading(made, "Data")
    for line in one.said:
        screen.paragraph(made, line)
    sides = [("train", one.train)]
    if one.validation is not None:
        sides.append(("validation", one.validation))
    screen.pairs(made, [(name, _counts(side)) for name, side in sides])
    _show_examples(made, one)
    limit = one.codec.max_length
    screen.heading(made, f"Lengths in tokens; {limit:,} fit")
    for line in histogram(one.train.lengths):
        made.print(f"  {line}" if line else "", soft_wrap=True)
    for name, side in sides:
        screen.paragraph(made, f"{name}: {side.cost(one.policy, limit)}")
    screen.heading(made, "Model; * is trained")
    for row in _tree(one):
        made.print(row, soft_wrap=True)
    screen.heading(made, "Training")
    for line in one.drawing.lines() if one.drawing else ():
        screen.paragraph(made, line)
    screen.pairs(made, list(_training(one)))


def _show_examples(made: Console, one: Inspection) -> None:
    from rich.text import Text

    from luthier.commands import screen
    from luthier.commands.tokens import painted

    if not one.train.shown:
        return
    colours = screen.colourful(made)
    how = "what is learned is green" if colours else "what is learned stands in [[ ]]"
    screen.heading(made, f"Examples; {how}")
    for number, example in enumerate(one.train.shown):
        if number:
            made.print()
        made.print(
            f"  {example.origin}: {example.size:,} tokens, {_wanted(one, example)}", style="dim"
        )
        for text in painted(example, one.codec, colours):
            for line in text.wrap(made, made.width - 4, tab_size=4):
                line.rstrip()
                made.print(Text("    ").append_text(line), soft_wrap=True)


def _wanted(one: Inspection, example: Example) -> str:
    """What an example teaches: tokens, or a class."""
    from luthier.data.length import learned_rows
    from luthier.show import label_words

    table = example.targets.get("classification")
    if table is None:
        return f"{learned_rows(example):,} learned"
    if "label" not in table:
        return f"{learned_rows(example):,} answers"

    return f"label: {label_words(table['label'][0], one.labels)}"


def _counts(side: Survey) -> str:
    line = f"{side.records:,} rows"
    if side.looked < side.records:
        line += f"; of {side.looked:,} drawn evenly:"
    else:
        line += ","
    total = int(side.lengths.sum())
    return (
        f"{line} {len(side.lengths):,} examples, {total:,} tokens, {side.targets:,} of them learned"
    )


def _tree(one: Inspection) -> Iterator[Text]:
    """A line a part: its name, how many parameters, how many of them learn, what it is."""
    from rich.text import Text

    rows = []
    for part in one.parts:
        learns = "all" if part.trained == part.total else f"{part.trained:,}"
        name = f"{'*' if part.trained else ' '} {'  ' * part.depth}{part.name}"
        rows.append((name, f"{part.total:,}", learns if part.trained else "", part.what))
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    for part, (name, total, learns, what) in zip(one.parts, rows, strict=True):
        line = f"  {name:<{wide[0]}}  {total:>{wide[1]}}  {learns:>{wide[2]}}  {what}".rstrip()
        yield Text(line, style="green" if part.trained else "")


def _training(one: Inspection) -> Iterator[tuple[str, str]]:
    from luthier.core.errors import UserError
    from luthier.core.words import size

    share = one.trainable / max(1, one.total)
    yield "trainable", f"{one.trainable:,} of {one.total:,} ({100 * share:.2f} %)"
    steps, epoch = one.steps
    spec = one.recipe.training
    about = "about " if one.train.looked < one.train.records else ""
    taken = (
        f"{about}{steps:,} of {spec.batch_size} examples, {epoch:,} an epoch; learning rate "
        f"{one.rate:g}, {spec.schedule}"
    )
    yield "steps", taken if epoch else "none: L-BFGS over all rows at once"
    if one.rates:
        yield "rates", one.rates
    yield "arithmetic", f"{one.precision[0]} on {one.device} ({one.precision[1]})"
    if isinstance(one.plan, UserError):
        yield "memory", str(one.plan.faults[0].message)
        return
    plan = one.plan
    activations = plan.per_token * plan.token_budget
    yield (
        "memory",
        f"about {size(plan.peak())} of {size(plan.free)} free: weights {size(plan.weights)}, "
        f"gradients and optimizer {size(plan.training)}, activations {size(activations)} "
        f"for {plan.token_budget:,} tokens at once",
    )


def _verdict(made: Console, found: Sequence[Inspection], words: list[str]) -> None:
    """What training would say first: that it begins, or what it refuses."""
    from luthier.commands import screen

    made.print()
    refusals = [fault for one in found for fault in one.refusals]
    if not refusals:
        made.print("Nothing is refused; to begin:", style="green")
        made.print(f"  luthier train {' '.join(words)}", soft_wrap=True)
        return
    made.print("Training would refuse this:", style="bold red")
    sorts: dict[tuple[str, str], list[Fault]] = {}
    for fault in refusals:
        sorts.setdefault((fault.code, fault.cure), []).append(fault)
    for (_, cure), faults in sorts.items():
        for fault in faults[:_NAMED]:
            screen.paragraph(made, screen.placed(fault))
        if len(faults) > _NAMED:
            screen.paragraph(made, f"… and {len(faults) - _NAMED:,} more like these")
        if cure:
            screen.paragraph(made, f"cure: {cure}", indent=4, style="dim")


def _resolved(recipe: Recipe) -> Iterator[Text]:
    """The recipe as YAML, lists on one line, what was not given dim."""
    yield from _mapping(recipe.resolved(), recipe, "  ")


def _mapping(plain: Mapping[str, Any], model: BaseModel | None, indent: str) -> Iterator[Text]:
    from pydantic import BaseModel
    from rich.text import Text

    for key, value in plain.items():
        given = model is None or key in model.model_fields_set
        inner = getattr(model, key, None)
        if isinstance(value, dict) and value and isinstance(inner, BaseModel):
            yield Text(f"{indent}{key}:", style="" if given else "dim")
            yield from _mapping(value, inner, indent + "  ")
        else:
            yield Text(f"{indent}{key}: {_flow(value)}", style="" if given else "dim")


def _flow(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.strip().removesuffix("\n...").strip()
