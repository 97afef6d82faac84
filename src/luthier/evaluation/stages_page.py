"""The page of a run in stages: what the whole did, each stage's figures, one curve over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, DictLoader, Environment, FileSystemLoader, StrictUndefined

from luthier.evaluation import report_words as words
from luthier.evaluation.report import OPEN_SAMPLES, Fact, Notice
from luthier.evaluation.report_data import Contents, Fields, mapping, number
from luthier.evaluation.report_plots import Chart, Line, Scale, Series, chart


@dataclass(frozen=True, slots=True)
class Told:
    """A stage as the page tells of it.

    Attributes:
        name: its folder's name.
        method: which parameters it trained.
        link: its own report, relative to the page.
        verdicts: rows of the before-and-after table.
        rows: held-out rows behind them; empty where nothing was measured.
        facts: label -> value for the table of stages.
        share: of the curve's width, in percent.
    """

    name: str
    method: str
    link: str
    verdicts: list[words.Verdict]
    rows: str
    facts: dict[str, str]
    share: float


@dataclass(frozen=True, slots=True)
class Answers:
    """A prompt of the last stage and what was answered along the way: ``(when, answer)``."""

    prompt: str
    origin: str
    reference: str | None
    given: list[tuple[str, str | None]]
    matches: bool


def render(whole: Contents, parts: Sequence[Contents], samples: Sequence[Fields]) -> str:
    """The page; HTML without a script and without anything fetched from elsewhere.

    Args:
        whole: recipe and environment of the run.
        parts: its stages, in order.
        samples: the last stage's, each with ``start``.
    """
    curve = loss_chart(parts)
    answers = [_answers(fields, len(parts)) for fields in samples]
    context: dict[str, Any] = {
        "name": whole.name,
        "subtitle": f"{origin(whole)} · {_plural(len(parts), 'stage')}",
        "headline": headline(parts),
        "earlier": _earlier(parts),
        "notices": _notices(parts),
        "facts": _facts(whole, parts),
        "stages": list(map(_told, parts, shares(parts))),
        "chart": curve and replace(curve, note=""),
        "note": curve.note if curve else "",
        "open_samples": answers[:OPEN_SAMPLES],
        "folded_samples": answers[OPEN_SAMPLES:],
        "compared": any(len(one.given) > 2 for one in answers),
        "recipe": whole.recipe,
    }
    return _jinja().get_template("stages.html.jinja").render(context)


def origin(whole: Contents) -> str:
    """What the first stage started from."""
    model = mapping(whole.settings.get("model"))
    if model.get("name"):
        return str(model["name"])
    return f"{model.get('architecture', 'model')} from scratch"


def kind(part: Contents, key: str) -> str:
    """A stage's objective or method by name."""
    return str(mapping(part.settings.get(key)).get("kind", ""))


def headline(parts: Sequence[Contents]) -> words.Headline:
    """The verdict on the last stage, whose model is the result."""
    found = words.headline(parts[-1].evaluation)
    which = f"In the last of {len(parts)} stages" if len(parts) > 1 else "In its only stage"
    if found is None:
        return words.Headline(
            f"{which}, nothing was measured.",
            "There is no evaluation of it, so whether the model got better is not shown.",
            "flat",
        )
    sentence = f"{which}, {found.sentence[0].lower()}{found.sentence[1:]}"
    told = (found.detail, words.tally(words.verdicts(parts[-1].evaluation)))
    detail = " ".join(filter(None, (*told, words.caution(parts[-1].evaluation))))
    return words.Headline(sentence, detail, found.tone)


def loss_chart(parts: Sequence[Contents]) -> Chart | None:
    """The loss over the steps of all stages, a line for each, borders between them."""
    starts = _starts(parts)
    series = [
        Series(label, style, _points(events, start), marks=marks, noisy=not marks)
        for part, start in zip(parts, starts, strict=True)
        for label, style, events, marks in (
            ("Training", "train", part.steps, False),
            ("Validation", "validation", part.validations, True),
        )
    ]
    made = chart("loss", "Loss", series)
    if made is None:
        return None
    places = dict.fromkeys(accumulate(shares(parts)[:-1]))
    borders = tuple(Line("border", f"M{10 * at:.1f} 0V1000", "") for at in places if 0 < at < 100)
    views = tuple(replace(view, lines=(*borders, *view.lines)) for view in made.views)
    legend = tuple(dict.fromkeys(made.legend))
    notes = dict.fromkeys(f"{note}." for note in made.note.rstrip(".").split(". ") if note)
    return replace(made, views=views, legend=legend, note=" ".join(notes))


def shares(parts: Sequence[Contents]) -> list[float]:
    """Width of each stage on the axis of :func:`loss_chart`, in percent."""
    starts = _starts(parts)
    logged = [
        step
        for part, start in zip(parts, starts, strict=True)
        for events in (part.steps, part.validations)
        for step, _ in _points(events, start)
    ]
    if not logged:
        return [100 / len(parts)] * len(parts)
    first, last = min(logged), max(logged)
    # As chart() lays its axis: from 0 unless what was logged begins far to the right.
    axis = Scale(0 if first <= 0.1 * last else first, max(last, first + 1))
    borders = [min(max(axis.at(start), 0.0), 1.0) for start in starts[1:]]
    return [100 * (b - a) for a, b in pairwise([0.0, *borders, 1.0])]


def _starts(parts: Sequence[Contents]) -> list[int]:
    """Steps of all stages before each."""
    return [0, *accumulate(_steps(part) for part in parts[:-1])]


def _jinja() -> Environment:
    here = Path(__file__).parent
    page = (here / "report.html.jinja").read_text(encoding="utf-8")
    # The macros of a single run's page stand above its first element.
    macros = DictLoader({"report_macros": page.partition("<!doctype")[0]})
    return Environment(
        loader=ChoiceLoader([macros, FileSystemLoader(here)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _told(part: Contents, share: float) -> Told:
    rows = number(mapping(part.evaluation).get("rows"))
    last = part.steps[-1] if part.steps else {}
    trained = number(mapping(part.environment.get("parameters")).get("trainable"))
    examples = number(mapping(mapping(part.environment.get("data")).get("train")).get("examples"))
    held = part.validations[-1] if part.validations else {}
    return Told(
        name=part.name,
        method=kind(part, "method"),
        link=f"{part.name}/report.html",
        verdicts=words.verdicts(part.evaluation),
        rows="" if rows is None else _plural(rows, "held-out row"),
        facts={
            "Examples": _count(examples),
            "Steps": _count(number(last.get("step"))),
            "Tokens read": _count(number(last.get("tokens"))),
            "Time": words.duration(number(last.get("seconds"))),
            "Trained parameters": _count(trained),
            "Validation loss": words.figure(number(held.get("loss"))),
        },
        share=round(share, 3),
    )


def _earlier(parts: Sequence[Contents]) -> list[str]:
    """How each stage but the last fell out, in a sentence."""
    told = []
    for part in parts[:-1]:
        found = words.headline(part.evaluation)
        sentence = found.sentence if found else "Nothing was measured."
        first = words.verdicts(part.evaluation)[:1]
        verdict = f" ({first[0].word})" if found and first else ""
        told.append(f"{part.name}: {sentence.rstrip('.')}{verdict}.")
    return told


def _facts(whole: Contents, parts: Sequence[Contents]) -> list[Fact]:
    lasts = [part.steps[-1] for part in parts if part.steps]

    def total(key: str) -> float | None:
        found = [value for last in lasts if (value := number(last.get(key))) is not None]
        return sum(found) if found else None

    memory = [m for part in parts for e in part.steps if (m := number(e.get("memory"))) is not None]
    parameters = mapping(parts[-1].environment.get("parameters"))
    place = parts[-1].environment
    on = [str(place[key]) for key in ("device", "precision") if key in place]
    facts = [
        Fact("Steps", _count(total("step")), f"in {_plural(len(parts), 'stage')}"),
        Fact("Tokens read", _count(total("tokens"))),
        Fact("Time", words.duration(total("seconds")), "training alone"),
        Fact("Model", _count(number(parameters.get("total"))), "parameters"),
        Fact("Peak memory", words.size(max(memory) if memory else None)),
        Fact("Ran on", on[0] if on else "–", ", ".join(on[1:])),
        Fact("Luthier", str(whole.environment.get("luthier", "–"))),
    ]
    return [fact for fact in facts if fact.value != "–"]


def _notices(parts: Sequence[Contents]) -> list[Notice]:
    notices: list[Notice] = []
    for part in parts:
        if not part.finished:
            notices.append(Notice("This stage is not finished.", part.name))
        said = [str(event.get("message", "")) for event in part.warnings]
        said += [f"{problem[0].upper()}{problem[1:]}." for problem in part.problems]
        skipped = max((number(event.get("skipped")) or 0 for event in part.steps), default=0)
        if skipped:
            said.append(f"{_plural(skipped, 'update')} skipped: a gradient was not finite.")
        notices += [Notice(message, part.name) for message in dict.fromkeys(said)]
    return notices


def _answers(fields: Fields, stages: int) -> Answers:
    def text(key: str) -> str | None:
        value = fields.get(key)
        return None if value is None else str(value)

    reference, after, start = text("reference"), text("after"), text("start")
    many = stages > 1
    given = [("Before the last stage" if many else "Before training", text("before"))]
    if start is not None:
        given.insert(0, ("Before any training", start))
    given.append(("After the last stage" if many else "After training", after))
    return Answers(
        prompt=text("prompt") or "",
        origin=text("origin") or "",
        reference=reference,
        given=given,
        matches=reference is not None and after is not None and reference.strip() == after.strip(),
    )


def _points(events: Sequence[Fields], start: int) -> list[tuple[float, float]]:
    return [
        (start + float(event["step"]), found)
        for event in events
        if (found := number(event.get("loss"))) is not None
    ]


def _steps(part: Contents) -> int:
    steps = [number(event.get("step")) or 0 for event in (*part.steps, *part.validations)]
    return int(max(steps, default=0))


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _plural(count: float, noun: str) -> str:
    return f"{count:,.0f} {noun}" + ("" if count == 1 else "s")
