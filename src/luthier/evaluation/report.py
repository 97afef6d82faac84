"""The report page: one self-contained file that says what a run did and whether it helped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from luthier.core.rundir import RunDir, write_text
from luthier.evaluation import report_classes, report_entities, report_rollouts
from luthier.evaluation import report_words as words
from luthier.evaluation.report_data import Contents, Fields, mapping, number, read
from luthier.evaluation.report_plots import Chart, Series, chart

#: Samples shown at once; the others stand behind a fold.
OPEN_SAMPLES = 5
#: Environment keys that have a section of their own.
_OWN_SECTION = ("data", "parameters")
_DATA_COLUMNS = {
    "rows": "Rows",
    "examples": "Examples",
    "tokens": "Tokens",
    "targets": "Learned tokens",
    "cut": "Cut",
    "skipped": "Skipped",
    "format": "Format",
    "fingerprint": "Fingerprint",
}
_KEY = re.compile(r"^(\s*(?:- +)*)([\w.-]+)(:)(?=\s|$)(.*)$")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the reader must know first."""

    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure of the run at a glance."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the data table; ``loud`` where something was cut or skipped."""

    label: str
    text: str
    kind: str
    full: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and its answers; of a classifier, one text and its labels.

    Attributes:
        prompt: what was asked.
        reference: the right answer, where one is known.
        before: answer before training, where one was given.
        after: answer after.
        origin: where the row stood.
        matches: whether the answer after is the reference.
        labelled: whether answers are labels, each right or wrong.
        before_sure: probability of the label before, in words.
        after_sure: the same after.
    """

    prompt: str
    reference: str | None
    before: str | None
    after: str | None
    origin: str
    matches: bool
    labelled: bool
    before_sure: str
    after_sure: str


def write(run: RunDir, *, finishing: bool = False) -> Path:
    """Renders the page into the run folder.

    Args:
        run: the run folder.
        finishing: whether only the card that finishes the run is still to come.

    Returns:
        The file written.
    """
    write_text(run.report, render(run, finishing=finishing))
    return run.report


def render(run: RunDir, *, finishing: bool = False) -> str:
    """The page of a run, finished or not; what is missing is said on it.

    Args:
        run: the run folder; any of its files may be missing or broken.
        finishing: whether only the card that finishes the run is still to come.

    Returns:
        HTML without a script and without anything fetched from elsewhere.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return jinja.get_template("report.html.jinja").render(_context(read(run, finishing=finishing)))


def _context(run: Contents) -> dict[str, Any]:
    verdicts = words.verdicts(run.evaluation)
    classes = report_classes.classes(run.evaluation)
    samples = [_sample(fields, classes) for fields in run.samples]
    return {
        "run": run,
        "subtitle": _subtitle(run.settings),
        "headline": words.headline(run.evaluation) or _unmeasured(run),
        "tally": words.tally(verdicts),
        "caution": words.caution(run.evaluation),
        "notices": _notices(run),
        "verdicts": verdicts,
        "sources": list(_sources(run.evaluation)),
        "forgotten": words.forgotten(run.evaluation),
        "old_rows": number(mapping(mapping(run.evaluation).get("retained")).get("rows")),
        "tasks": list(_tasks(run.evaluation)),
        "classes": classes,
        "entities": report_entities.entities(run.evaluation),
        "majority": report_classes.majority(run.evaluation),
        "facts": _facts(run),
        "charts": [*report_rollouts.charts(run), *_charts(run)]
        if report_rollouts.sampled(run)
        else _charts(run),
        "drawn": report_rollouts.drawn(run),
        "open_samples": samples[:OPEN_SAMPLES],
        "folded_samples": samples[OPEN_SAMPLES:],
        "rows": number(mapping(run.evaluation).get("rows")),
        "data": _data(run.environment),
        "environment": _flat(
            {key: value for key, value in run.environment.items() if key not in _OWN_SECTION}
        ),
        "recipe": _recipe_lines(run.recipe),
    }


def _sources(evaluation: Fields | None) -> Iterator[Fields]:
    """Figures of each source of a mixture, where there are some."""
    for name, value in mapping(mapping(evaluation).get("sources")).items():
        found = words.verdicts(mapping(value))
        if found:
            rows = number(mapping(value).get("rows"))
            yield {"name": name, "rows": int(rows or 0), "verdicts": found}


def _tasks(evaluation: Fields | None) -> Iterator[Fields]:
    """What is known of the classes and types of each of several tasks."""
    for name, value in mapping(mapping(evaluation).get("tasks")).items():
        found = mapping(value)
        yield {
            "name": name,
            "rows": int(number(found.get("rows")) or 0),
            "classes": report_classes.classes(found),
            "entities": report_entities.entities(found),
        }


def _subtitle(settings: Fields) -> str:
    model = settings.get("model")
    name = mapping(model).get("name") if isinstance(model, dict) else model
    parts = [str(name)] if name else []
    for key in ("objective", "method"):
        value = settings.get(key)
        kind = mapping(value).get("kind") if isinstance(value, dict) else value
        parts += [str(kind)] if kind else []
    return " · ".join(parts)


def _unmeasured(run: Contents) -> words.Headline:
    losses = _points(run.steps, "loss")
    why = (
        "There is no evaluation of this run, so whether the model got better is not shown."
        if run.finished
        else "The run has not finished, so whether the model got better is not known yet."
    )
    if len(losses) < 2:
        return words.Headline("Nothing has been measured yet.", why, "flat")
    (_, first), (last, end) = losses[0], losses[-1]
    verb = "fell" if end < first else "rose" if end > first else "stayed"
    sentence = (
        f"Training loss {verb} from {words.figure(first)} to {words.figure(end)} "
        f"in {last:,.0f} steps."
    )
    return words.Headline(sentence, why, "flat")


def _notices(run: Contents) -> list[Notice]:
    notices: list[Notice] = []
    if not run.finished:
        last = run.steps[-1]["step"] if run.steps else None
        where = f"Its last logged step is {last:,}." if last else "It has logged no step."
        notices.append(Notice("This run is not finished.", f"{where} The page shows what exists."))
    if report_classes.no_better(run.evaluation):
        text = "Accuracy is not shown to be better than always saying the most frequent class."
        notices.append(Notice(text, report_classes.majority(run.evaluation)))
    notices += [Notice(problem[0].upper() + problem[1:] + ".") for problem in run.problems]
    seen: dict[str, list[Any]] = {}
    for event in run.warnings:
        seen.setdefault(str(event.get("message", "")), []).append(event.get("step"))
    for message, steps in seen.items():
        at = "" if steps[0] is None else f"Step {steps[0]}"
        often = "" if len(steps) == 1 else f"{', and' if at else ''} {len(steps) - 1} more times"
        notices.append(Notice(message, f"{at}{often}".strip()))
    skipped = [event for event in run.steps if (number(event.get("skipped")) or 0) > 0]
    if skipped:
        detail = f"First at step {skipped[0]['step']:,}: a gradient was not finite."
        notices.append(Notice("Some updates were skipped.", detail))
    return notices


def _facts(run: Contents) -> list[Fact]:
    last = run.steps[-1] if run.steps else {}
    parameters = mapping(run.environment.get("parameters"))
    trainable, total = (number(parameters.get(key)) for key in ("trainable", "total"))
    share = f", {words.figure(100 * trainable / total)} % of all" if trainable and total else ""
    epoch = number(last.get("epoch"))
    memory = [value for _, value in _points(run.steps, "memory")]
    speeds = [value for _, value in _points(run.steps, "tokens_per_second")]
    place = [str(run.environment[key]) for key in ("device", "precision") if key in run.environment]
    facts = [
        Fact("Steps", _count(last.get("step")), f"{words.figure(epoch)} epochs" if epoch else ""),
        Fact("Tokens read", _count(last.get("tokens"))),
        Fact("Time", words.duration(number(last.get("seconds")))),
        Fact("Speed", _count(median(speeds)) if speeds else "–", "tokens a second, median"),
        Fact("Trained", _count(trainable), f"parameters{share}"),
        Fact("Peak memory", words.size(max(memory) if memory else None)),
        Fact("Ran on", place[0] if place else "–", ", ".join(place[1:])),
    ]
    return [fact for fact in facts if fact.value != "–"]


def _charts(run: Contents) -> list[Chart]:
    parts, seen = (_parts(run, name) for name in ("terms", "watched"))
    # What held-out prompts earn is no loss, and has a chart of its own.
    held_out = [] if report_rollouts.sampled(run) else _points(run.validations, "loss")
    drawn = [
        chart(
            "loss",
            "Loss",
            [
                Series("Training", "train", _points(run.steps, "loss"), noisy=True),
                Series("Validation", "validation", held_out, marks=True),
            ],
        ),
        chart("terms", "Terms of the loss", parts) if len(parts) > 1 else None,
        chart("watched", "Watched, and not learned from", seen) if seen else None,
        chart(
            "rate",
            "Learning rate",
            [Series("Learning rate", "train", _points(run.steps, "learning_rate"))],
            zero=True,
        ),
        chart(
            "norm",
            "Gradient norm",
            [Series("Gradient norm", "train", _points(run.steps, "grad_norm"), noisy=True)],
            zero=True,
        ),
    ]
    return [one for one in drawn if one is not None]


def _parts(run: Contents, kind: str) -> list[Series]:
    """The curves of what events hold by name."""
    names = sorted({key for event in run.steps for key in mapping(event.get(kind))})
    return [
        Series(
            name.replace("_", " "),
            f"term-{i % 4 + 1}",
            _points(run.steps, kind, name),
            noisy=True,
        )
        for i, name in enumerate(names)
    ]


def _points(events: list[Fields], *path: str) -> list[tuple[float, float]]:
    points = []
    for event in events:
        value: Any = event
        for key in path:
            value = mapping(value).get(key)
        found = number(value)
        if found is not None:
            points.append((float(event["step"]), found))
    return points


def _sample(fields: Fields, classes: report_classes.Classes | None) -> Sample:
    def text(key: str) -> str | None:
        value = fields.get(key)
        return None if value is None else str(value)

    def sure(key: str) -> str:
        share = number(fields.get(key))
        # Several labels have a probability each; one figure would say nothing of the set.
        if share is None or classes is None or classes.several:
            return ""
        return f"{words.percent(share)} sure"

    reference, after = text("reference"), text("after")
    return Sample(
        prompt=text("prompt") or "",
        reference=reference,
        before=text("before"),
        after=after,
        origin=text("origin") or "",
        matches=reference is not None and after is not None and reference.strip() == after.strip(),
        labelled=classes is not None and reference is not None,
        before_sure=sure("before_probability"),
        after_sure=sure("after_probability"),
    )


def _data(environment: Fields) -> list[tuple[str, list[Cell]]]:
    sets = {
        name: value
        for name, value in mapping(environment.get("data")).items()
        if isinstance(value, dict)
    }
    known = [key for key in _DATA_COLUMNS if any(key in value for value in sets.values())]
    return [
        (name.capitalize(), [_cell(key, value.get(key)) for key in known])
        for name, value in sets.items()
    ]


def _cell(key: str, value: Any) -> Cell:
    label, count = _DATA_COLUMNS[key], number(value)
    if count is not None:
        loud = key in ("cut", "skipped") and count > 0
        return Cell(label, _count(count), "loud" if loud else "number")
    if key == "fingerprint" and value:
        return Cell(label, f"{str(value)[:12]}…", "code", full=str(value))
    return Cell(label, "–" if value is None else str(value), "text")


def _flat(value: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{path}{key}"
        if isinstance(inner, dict) and inner:
            found += _flat(inner, f"{name}.")
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
            found.append((name, text))
    return found


def _recipe_lines(recipe: str | None) -> list[tuple[str, str, str]] | None:
    """Lines as (indent, key with colon, rest), so that the page can set keys apart."""
    if recipe is None:
        return None
    lines = []
    for line in recipe.rstrip("\n").split("\n"):
        match = _KEY.match(line)
        lines.append((match[1], match[2] + match[3], match[4]) if match else ("", "", line))
    return lines


def _count(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found:,.0f}"
