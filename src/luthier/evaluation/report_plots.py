"""Curves of a run: where each line, tick and label of a chart lies, for the page to draw.

A chart's plane is 1000 wide and 1000 high, stretched to whatever room the page has; y grows
downwards, as in SVG. Ticks and labels are in percent of it, so that text is never stretched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from luthier.evaluation.report_words import figure

#: More points than this a line, and neighbours are averaged.
POINTS = 400
#: Places along the x axis that answer to the mouse.
BANDS = 160
#: Points from which a noisy line is drawn faint with a smooth one over it.
SMOOTHED = 40
#: Largest over smallest value from which a logarithmic axis is offered.
WIDE = 20.0


@dataclass(frozen=True, slots=True)
class Series:
    """One line's data.

    Attributes:
        label: name in the legend.
        style: CSS class: ``train``, ``validation`` or ``term-1`` …
        points: ``(step, value)`` in order of step, finite.
        marks: whether each point gets a dot (few points).
        noisy: whether a smoothed line tells more.
    """

    label: str
    style: str
    points: Sequence[tuple[float, float]]
    marks: bool = False
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, in percent, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A path in the plane; ``dots`` is the same as separate points."""

    style: str
    path: str
    dots: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point lit while its band is under the mouse."""

    style: str
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Band:
    """A vertical slice of the plane that says its values."""

    left: float
    width: float
    middle: float
    title: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A chart under one scale."""

    name: str
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart ready to draw.

    Attributes:
        key: a word for element ids.
        title: what is drawn.
        summary: the curve in words, for those who cannot see it.
        note: what was averaged or smoothed; empty where nothing was.
        legend: ``(style, label)``; empty for a single line.
        x_ticks: shared by all views.
        views: one, or logarithmic and linear.
    """

    key: str
    title: str
    summary: str
    note: str
    legend: tuple[tuple[str, str], ...]
    x_ticks: tuple[Tick, ...]
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to fractions of an axis, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def chart(key: str, title: str, series: Sequence[Series], *, zero: bool = False) -> Chart | None:
    """A chart of one or more series over steps; ``None`` where there is no point to draw.

    Args:
        key: a word for element ids.
        title: what is drawn.
        series: the lines; empty ones are left out.
        zero: whether the linear axis begins at zero.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return None
    thinned = [_thin(one) for one in drawn]
    steps = [step for one in drawn for step, _ in one.points]
    first, last = min(steps), max(steps)
    # A run begins at 0; one continued at step 5,000 need not show the steps before.
    x = Scale(0 if first <= 0.1 * last else first, max(last, first + 1))
    values = [value for one in thinned for _, value in one.points]
    views = [_view("linear", thinned, x, _linear(values, zero=zero))]
    if min(values) > 0 and max(values) / min(values) >= WIDE and not zero:
        views.insert(0, _view("log", thinned, x, _logarithmic(values)))
    return Chart(
        key=key,
        title=title,
        summary=_summary(drawn),
        note=_note(drawn, thinned),
        legend=tuple((one.style, one.label) for one in drawn) if len(drawn) > 1 else (),
        x_ticks=tuple(_x_ticks(x)),
        views=tuple(views),
    )


def smooth(values: Sequence[float]) -> list[float]:
    """Mean of each value and its neighbours on both sides, a twenty-fifth of the line in all.

    A trailing average would lag behind a falling loss and draw it too high; this one narrows
    towards the ends instead.

    >>> smooth([4.0, 1.0, 1.0])
    [4.0, 2.0, 1.0]
    """
    reach, last = max(1, len(values) // 50), len(values) - 1
    out = []
    for i in range(len(values)):
        side = min(reach, i, last - i)
        window = values[i - side : i + side + 1]
        out.append(sum(window) / len(window))
    return out


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between two ends.

    >>> nice_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * base for base in (1, 2, 5, 10) if power * base >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = max(0, -math.floor(math.log10(step)))
    return [round(i * step, places) for i in range(first, last + 1)]


def _linear(values: Sequence[float], *, zero: bool) -> Scale:
    low, high = min(values), max(values)
    if zero and low >= 0:
        low = 0.0
    room = (high - low) or abs(high) or 1.0
    return Scale(low if low == 0 else low - 0.05 * room, high + 0.05 * room)


def _logarithmic(values: Sequence[float]) -> Scale:
    room = (max(values) / min(values)) ** 0.05
    return Scale(min(values) / room, max(values) * room, log=True)


def _view(name: str, series: Sequence[Series], x: Scale, y: Scale) -> View:
    lines: list[Line] = []
    for one in series:
        noisy = one.noisy and len(one.points) >= SMOOTHED
        lines.append(_line(one, x, y, f"{one.style} faint" if noisy else one.style))
        if noisy:
            means = smooth([value for _, value in one.points])
            steps = [step for step, _ in one.points]
            smoothed = Series(one.label, one.style, list(zip(steps, means, strict=True)))
            lines.append(_line(smoothed, x, y, one.style))
    values = _y_values(y)
    texts = [figure(value, trim=True) for value in values] if y.log else _even(values)
    places = [_percent(1 - y.at(value)) for value in values]
    ticks = tuple(Tick(place, text) for place, text in zip(places, texts, strict=True))
    return View(name, ticks, tuple(lines), tuple(_bands(series, x, y)))


def _line(one: Series, x: Scale, y: Scale, style: str) -> Line:
    places = [f"{1000 * x.at(s):.1f} {1000 - 1000 * y.at(v):.1f}" for s, v in one.points]
    # A line of no length with round ends is a dot that no stretching turns into an ellipse.
    dots = "".join(f"M{place}h0" for place in places)
    return Line(style, "M" + "L".join(places), dots if one.marks or len(places) == 1 else "")


def _y_values(y: Scale) -> list[float]:
    if not y.log:
        return nice_ticks(y.low, y.high, 4)
    first, last = math.floor(math.log10(y.low)), math.ceil(math.log10(y.high))
    bases = (1,) if last - first > 4 else (1, 3) if last - first > 2 else (1, 2, 5)
    values = [base * 10.0**power for power in range(first, last + 1) for base in bases]
    return [value for value in values if y.low <= value <= y.high]


def _even(values: Sequence[float]) -> list[str]:
    """The same number of decimals for all: 0.60, 0.62, 0.64."""
    texts = [figure(value, trim=True) for value in values]
    if any("e" in text for text in texts):
        return texts
    places = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [f"{value:,.{places}f}".replace("-", "−") for value in values]


def _x_ticks(x: Scale) -> list[Tick]:
    # Steps are whole: a short run must not be labelled 0.5.
    whole = [value for value in nice_ticks(x.low, x.high, 5) if value == int(value)]
    return [Tick(_percent(x.at(value)), f"{value:,.0f}") for value in whole]


def _bands(series: Sequence[Series], x: Scale, y: Scale) -> list[Band]:
    known = [dict(one.points) for one in series]
    steps = sorted({step for points in known for step in points})
    # Few points (validations) are never thinned away from under the mouse.
    kept = {step for one, points in zip(series, known, strict=True) if one.marks for step in points}
    stride = math.ceil(len(steps) / BANDS)
    steps = sorted(kept | set(steps[::stride]))
    places = [100 * x.at(step) for step in steps]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(places)), 100.0]
    bands: list[Band] = []
    for i, step in enumerate(steps):
        dots = tuple(
            Dot(one.style, _percent(1 - y.at(points[step])), f"{one.label} {figure(points[step])}")
            for one, points in zip(series, known, strict=True)
            if step in points
        )
        left, width = round(edges[i], 2), edges[i + 1] - edges[i]
        middle = 100 * (places[i] - edges[i]) / width if width else 50.0
        bands.append(Band(left, round(width, 2), round(middle, 1), f"Step {step:,.0f}", dots))
    return bands


def _thin(one: Series) -> Series:
    stride = math.ceil(len(one.points) / POINTS)
    if stride == 1:
        return one
    groups = [one.points[i : i + stride] for i in range(0, len(one.points), stride)]
    points = [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
    return Series(one.label, one.style, points, one.marks, one.noisy)


def _note(drawn: Sequence[Series], thinned: Sequence[Series]) -> str:
    notes = []
    for one, thin in zip(drawn, thinned, strict=True):
        stride = math.ceil(len(one.points) / POINTS)
        if stride > 1:
            notes.append(f"{one.label}: each point is the mean of {stride} logged steps.")
        if thin.noisy and len(thin.points) >= SMOOTHED:
            notes.append(f"{one.label}: logged values faint, their running mean solid.")
    return " ".join(notes)


def _summary(drawn: Sequence[Series]) -> str:
    parts = []
    for one in drawn:
        (first, start), (last, end) = one.points[0], one.points[-1]
        parts.append(
            f"{one.label}: {figure(start)} at step {first:,.0f}, {figure(end)} at step {last:,.0f}"
        )
    return "; ".join(parts) + "."


def _percent(share: float) -> float:
    return round(100 * share, 2)
