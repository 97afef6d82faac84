"""A recipe's data on one page: what is wrong with it, how long, how balanced, what stands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from luthier.checking import check_recipe
from luthier.core.errors import DataError, RecipeError, nearest
from luthier.core.findings import Finding
from luthier.core.histogram import bins
from luthier.core.recipe import DataSpec, Recipe
from luthier.core.records import Row
from luthier.data.check import Progress, Report, codes, silent
from luthier.data.patience import Watch, within
from luthier.data.personal import hidden
from luthier.data.sources import stream
from luthier.data_report.figures import Alike, DataReport, Found, Lengths, Source
from luthier.data_report.shares import Sided, groups, labels, scripts
from luthier.data_report.texts import Texts
from luthier.data_report.worst import worst
from luthier.inspection import MOST, Survey, survey
from luthier.pages import rendered
from luthier.preview import Preview, preview
from luthier.stages import alone, begun_tokenizer

#: What the check calls leaks and duplicates.
_ALIKE = ("D040", "D041", "D050", "D051", "D053")
#: Ranges of a histogram; examples of each sort of duplicate.
_BINS, _EXAMPLES = 16, 4


def report(
    recipe: Recipe,
    *,
    group: str = "",
    stage: int = 1,
    everything: bool = False,
    progress: Progress = silent,
) -> DataReport:
    """What is to be known of a recipe's data before training on it; no weight is loaded.

    Args:
        recipe: what ``luthier train`` would run.
        group: a column of the rows by which they are compared; none if empty.
        stage: of a recipe with stages.
        everything: put every row into tokens, not an even draw of those of a large set.
        progress: told how far it is.

    Raises:
        RecipeError: there is no such stage or column.
        UserError: no such model, or nothing to look at.
    """
    recipe, tokenizer = alone(recipe, stage), begun_tokenizer(recipe, stage)
    values = _column(recipe.data, group) if group else {}
    (checked,) = check_recipe(recipe, progress=progress, by_row=True, tokenizer=tokenizer)
    texts = Texts(source.name for source in checked.sources)
    found = _findings(recipe, checked, texts)
    try:
        seen = preview(recipe, tokenizer)
    except DataError as error:
        fault = error.faults[0]
        place = f"{texts.place(fault.place)}: " if fault.place else ""
        return replace(found, unread=hidden(f"{place}{fault.message}"))
    return _with_rows(found, checked, seen, texts, (group, values), None if everything else MOST)


def page(found: DataReport) -> str:
    """A report as one self-contained HTML page."""
    return rendered("data_report.html.jinja", report=found)


def _findings(recipe: Recipe, checked: Report, texts: Texts) -> DataReport:
    """What the check found, and nothing else yet."""
    titles = {code.name: code.title for code in codes()}
    findings = checked.findings
    sources = [
        Source(texts.name(each.name), each.split, each.rows, each.faulty, hidden(each.format))
        for each in checked.sources
    ]
    model = recipe.model.name or recipe.model.architecture or ""
    found = DataReport(
        " and ".join(source.name for source in sources),
        f"{model} · {recipe.objective.kind}",
        findings.errors,
        findings.warnings,
        checked.rows,
        tuple(sources),
        tuple(
            Found(
                kept[0].code,
                kept[0].severity,
                titles[kept[0].code],
                total,
                tuple(_quoted(one, texts) for one in kept),
            )
            for kept, total in findings.groups()
        ),
        "",
    )
    return replace(found, alike=_alike(found, checked, {}, texts))


def _quoted(one: Finding, texts: Texts) -> Finding:
    """A finding as a page says it."""
    return replace(
        one, place=texts.place(one.place), message=hidden(one.message), cure=hidden(one.cure)
    )


def _with_rows(
    found: DataReport,
    checked: Report,
    seen: Preview,
    texts: Texts,
    grouped: tuple[str, Mapping[str, str]],
    most: int | None,
) -> DataReport:
    """The same with all that the records themselves show."""
    parts = [("train", seen.train)]
    if seen.held is not None:
        parts.append(("validation", seen.held))
    rows: list[Sided] = [(r, name != "train") for name, part in parts for r in part.records]
    records = [record for record, _ in rows]
    measured, sizes = [], dict[str, int]()
    for name, part in parts:
        one = survey(seen, part, most=most)
        measured.append(_lengths(name, one, seen))
        for index, size in zip(one.drawn, one.sizes.tolist(), strict=True):
            if size:
                sizes[str(part.records[index].origin)] = size
    column, values = grouped
    heads = {head.kind for head in seen.objective.heads}
    return replace(
        found,
        said=tuple(hidden(line) for line in seen.said),
        limit=seen.codec.max_length,
        policy=seen.policy,
        learned="learned tokens" if {"lm", "masked_lm"} & set(heads) else "labels",
        lengths=tuple(measured),
        labels=labels(rows),
        scripts=scripts(rows, texts),
        alike=_alike(found, checked, {str(r.origin): r for r in records}, texts),
        groups=groups(rows, column, values, sizes) if column else None,
        worst=worst(records, sizes, checked.findings.rows or {}, texts),
    )


def _lengths(side: str, one: Survey, seen: Preview) -> Lengths:
    limit = seen.codec.max_length
    lengths = one.lengths
    if not len(lengths):
        return Lengths(side, one.records, one.looked, 0, 0, 0, 0, (), 0, 0, 0, "")
    median, nine = np.quantile(lengths, [0.5, 0.9], method="inverted_cdf").tolist()
    return Lengths(
        side,
        one.records,
        one.looked,
        int(lengths.sum()),
        int(median),
        int(nine),
        int(lengths[-1]),
        tuple(bins(lengths, _BINS, limit)),
        int((lengths > limit).sum()),
        one.targets,
        one.cut.targets,
        one.cost(seen.policy, limit),
    )


def _alike(
    found: DataReport, checked: Report, records: Mapping[str, Any], texts: Texts
) -> tuple[Alike, ...]:
    """Duplicates and leaks with the text of a few of them."""
    kept = {group[0].code: group for group, _ in checked.findings.groups()}
    return tuple(
        Alike(
            each.code,
            each.title,
            each.total,
            tuple(
                texts.excerpt(records[one.place], hidden(one.message))
                for one in kept[each.code][:_EXAMPLES]
                if one.place in records
            ),
        )
        for each in found.found
        if each.code in _ALIKE
    )


def _column(spec: DataSpec, column: str) -> dict[str, str]:
    """What stands in a column, by the row's place; rows that have nothing there are left out.

    Raises:
        RecipeError: no row has such a column.
    """
    readings = list(spec.readings())
    if not isinstance(spec.validation, int | float | None):
        readings.append(spec.reading(spec.validation))
    names: set[str] = set()

    def work(watch: Watch) -> dict[str, str]:
        found: dict[str, str] = {}
        for how in readings:
            for source in stream(how.source, limit=how.limit, watch=watch, memory=how.memory):
                for row in source.items:
                    if isinstance(row, Row):
                        names.update(row.fields)
                        said = row.fields.get(column)
                        if said is not None and str(said).strip():
                            found[str(row.origin)] = str(said)
        return found

    named = spec.train if isinstance(spec.train, str) else "the data"
    values = within(spec.timeout, named, work)
    if names and column not in names:
        raise RecipeError(
            f"no row has a column '{column}'", cure=nearest(column, names), code="usage"
        )
    return values
