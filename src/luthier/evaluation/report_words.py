"""Figures and verdicts of the report in words that a beginner understands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from luthier.evaluation.report_data import Fields, mapping, number

#: Below this p-value a difference is called one.
LEVEL = 0.05
#: Fewer rows than this, and an interval deserves a word of caution.
FEW_ROWS = 30

#: Name -> (label, what it measures). A name that is not here is shown as it is.
MEANINGS = {
    "perplexity": ("Perplexity", "How surprised the model is by the right text; 1 is not at all"),
    "bits_per_byte": ("Bits per byte", "The same, comparable between tokenizers"),
    "token_accuracy": ("Token accuracy", "Share of tokens guessed right, 0 to 1"),
    "exact_match": ("Exact match", "Share of answers equal to the reference, 0 to 1"),
    "rouge_1": ("ROUGE-1", "Words shared with the reference, 0 to 1"),
    "rouge_2": ("ROUGE-2", "Word pairs shared with the reference, 0 to 1"),
    "rouge_l": ("ROUGE-L", "Longest common run of words in order, 0 to 1"),
    "bleu": ("BLEU", "Phrases shared with the reference, 0 to 100"),
    "chrf": ("chrF", "Character runs shared with the reference, 0 to 100"),
    "chrf_pp": ("chrF++", "Character and word runs shared, 0 to 100"),
    "accuracy": ("Accuracy", "Share of rows labelled right, 0 to 1"),
    "f1_macro": ("Macro F1", "Precision and recall in one; every class counts alike, 0 to 1"),
    "f1_weighted": ("Weighted F1", "The same; every class counts by its rows"),
    "precision_macro": ("Macro precision", "Of what is said to be a class, how much is"),
    "precision_weighted": ("Weighted precision", "The same; every class counts by its rows"),
    "recall_macro": ("Macro recall", "Of what is truly a class, how much is found"),
    "recall_weighted": ("Weighted recall", "The same; every class counts by its rows"),
    "entity_f1": ("Entity F1", "Precision and recall of whole entities in one, 0 to 1"),
    "entity_precision": ("Entity precision", "Of the entities marked, how many are right"),
    "entity_recall": ("Entity recall", "Of the true entities, how many are found"),
    "preference_accuracy": ("Preference accuracy", "Share of pairs told right, 0 to 1"),
    "preference_margin": ("Preference margin", "Worth of the better answer less the other’s"),
    "preference_calibration_error": ("Preference calibration error", "0: as sure as it is right"),
    "preference_log_loss": ("Preference log loss", "Surprise at who was preferred; 0.69 is a coin"),
    "length_correlation": ("Length correlation", "How far worth goes with length, −1 to 1"),
    "thumb_gap": ("Gap of thumbs", "Worth of liked answers less that of the others"),
    "mean_squared_error": ("Mean squared error", "Miss of the number, squared; large ones tell"),
    "mean_absolute_error": ("Mean absolute error", "How far off the number is on average"),
    "pearson": ("Pearson’s r", "Whether predictions rise with the truth, −1 to 1"),
    "r2": ("R²", "Share of the variation explained; 0 is always saying the mean"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval against zero, in percent of the drawing's width."""

    left: float
    width: float
    middle: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the before-and-after table, ready to print.

    Attributes:
        name: the figure's key in the file.
        label: its name in words.
        meaning: what it measures; empty where unknown.
        direction: which way is good.
        before: value before training.
        after: value after.
        difference: with its sign.
        interval: 95 % interval of the difference.
        p: p-value with its sign of relation.
        word: ``better``, ``worse``, ``no difference shown`` or ``not compared``.
        tone: ``good``, ``bad`` or ``flat``.
        bar: the interval drawn, where there is one.
        rows: examples that counted, where known.
    """

    name: str
    label: str
    meaning: str
    direction: str
    before: str
    after: str
    difference: str
    interval: str
    p: str
    word: str
    tone: str
    bar: Bar | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class Headline:
    """The first thing the page says: a sentence, and what follows from it."""

    sentence: str
    detail: str
    tone: str


def figure(value: float | None, digits: int = 3, *, trim: bool = False) -> str:
    """A number as a person writes it: three significant digits, thousands apart.

    Args:
        value: the number; a dash stands for one that is missing or not finite.
        digits: significant digits.
        trim: whether zeros at the end of a fraction are left out.

    >>> [figure(x) for x in (84.66, 0.51234, 12345.6, 0.0002, -3, None)]
    ['84.7', '0.512', '12,346', '2e-4', '−3', '–']
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size == 0:
        text = "0"
    elif size < 1e-3 or size >= 1e9:
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        text = f"{_trim(mantissa)}e{int(exponent)}"
    else:
        places = max(0, digits - 1 - math.floor(math.log10(size)))
        text = f"{size:,.{places}f}"
        text = _trim(text) if trim or size == int(size) else text
    return f"−{text}" if value < 0 else text


def signed(*values: float | None) -> list[str]:
    """Differences with their signs, all to the decimals that the largest deserves.

    >>> signed(-0.0165, -0.03, -0.0041)
    ['−0.0165', '−0.0300', '−0.0041']
    """
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if not 1e-3 <= largest < 1e9:
        return [f"+{figure(value)}" if (value or 0) > 0 else figure(value) for value in values]
    places = max(0, 2 - math.floor(math.log10(largest)))
    return ["–" if value is None else f"{value:+,.{places}f}".replace("-", "−") for value in values]


def percent(share: float) -> str:
    """A share as ``1.3 %``; all and nothing are said of nothing less.

    >>> [percent(x) for x in (0.01299, 0.92, 1.0, 0.99999, 0.00001, 0.0)]
    ['1.3 %', '92 %', '100 %', 'over 99.9 %', 'under 0.1 %', '0 %']
    """
    if 0.9995 <= share < 1:
        return "over 99.9 %"
    if 0 < share < 0.0005:
        return "under 0.1 %"
    return f"{_trim(f'{100 * share:.1f}')} %"


def chance(p: float | None) -> str:
    """A p-value: ``p = 0.012``, ``p < 0.0001``."""
    if p is None:
        return "–"
    if p < 0.00005:
        return "p < 0.0001"
    return f"p = {p:.{4 if p < 0.01 else 3 if p < 0.1 else 2}f}"


def duration(seconds: float | None) -> str:
    """Seconds as ``48 s``, ``3 min 12 s`` or ``2 h 5 min``."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{figure(seconds)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def size(count: float | None) -> str:
    """Bytes as ``1.2 GB``."""
    if count is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{figure(count / scale)} {unit}"
    return f"{count:.0f} bytes"


def verdicts(evaluation: Fields | None) -> list[Verdict]:
    """The table's rows, in the order of the file."""
    metrics = mapping(mapping(evaluation).get("metrics"))
    return [_verdict(name, mapping(fields)) for name, fields in metrics.items()]


def forgotten(evaluation: Fields | None) -> list[Verdict]:
    """The table's rows on what the model could do before; empty where the run has none."""
    return verdicts(mapping(mapping(evaluation).get("retained")))


def headline(evaluation: Fields | None) -> Headline | None:
    """The verdict in a sentence, from the first figure that has a value; ``None`` without one."""
    metrics = mapping(mapping(evaluation).get("metrics"))
    for name, value in metrics.items():
        fields = mapping(value)
        after = number(fields.get("after"))
        if after is not None:
            rows = number(fields.get("rows")) or number(mapping(evaluation).get("rows"))
            return _headline(name, fields, after, rows)
    return None


def tally(found: list[Verdict]) -> str:
    """How the measures fell out, all together; empty for fewer than two."""
    if len(found) < 2:
        return ""
    words = [verdict.word for verdict in found]
    if len(set(words)) == 1:
        return f"The verdict is the same on all {len(found)} measures."
    parts = [
        f"{words.count(word)} {said}"
        for word, said in (
            ("better", "better"),
            ("worse", "worse"),
            ("no difference shown", "with no difference shown"),
            ("not compared", "not compared"),
        )
        if word in words
    ]
    return f"Of all {len(found)} measures: {', '.join(parts)}."


def caution(evaluation: Fields | None) -> str:
    """A word of warning where few rows stand behind the figures; else empty."""
    rows = number(mapping(evaluation).get("rows"))
    if rows is None or rows >= FEW_ROWS:
        return ""
    return f"Only {figure(rows)} held-out rows: too few for more than a first impression."


def _headline(name: str, fields: Fields, after: float, rows: float | None) -> Headline:
    label = _label(name)
    where = "On the held-out rows" if rows is None else f"On {_plural(rows, 'held-out row')}"
    before = number(fields.get("before"))
    if before is None:
        return Headline(
            f"{where}, the tuned model’s {label} is {figure(after)}.",
            "The model before training was not measured, so there is nothing to compare it with.",
            "flat",
        )
    word, tone = _judge(fields)
    verb = "fell" if after < before else "rose" if after > before else "stayed"
    moved = f"from {figure(before)} to {figure(after)}" if verb != "stayed" else "the same"
    good = "Lower" if _lower(fields) else "Higher"
    p = number(fields.get("p_value"))
    details = {
        "better": f"{good} is better, so this is an improvement. {_odds(p)}",
        "worse": f"{good} is better, so the model got worse. {_odds(p)}",
        "no difference shown": "These rows do not show a difference: one of this size can be "
        f"chance ({chance(p)}). More held-out rows would tell more.",
        "not compared": "There is no test of this difference, so it may be chance.",
    }
    return Headline(f"{where}, {label} {verb} {moved}.", details[word], tone)


def _odds(p: float | None) -> str:
    if p is None or p <= 0:
        return ""
    rarity = f"{float(f'{1 / p:.2g}'):,.0f}"
    return (
        f"Were the two models alike, a gap this large would turn up about once in {rarity} tries."
    )


def _verdict(name: str, fields: Fields) -> Verdict:
    word, tone = _judge(fields)
    label, meaning = _meaning(name)
    interval, change = _interval(fields.get("interval")), number(fields.get("difference"))
    difference, low, high = signed(change, *(interval or (None, None)))
    rows = number(fields.get("rows"))
    return Verdict(
        name=name,
        label=label,
        meaning=meaning,
        direction="lower is better" if _lower(fields) else "higher is better",
        before=figure(number(fields.get("before"))),
        after=figure(number(fields.get("after"))),
        difference=difference,
        interval=f"{low} to {high}" if interval else "–",
        p=chance(number(fields.get("p_value"))),
        word=word,
        tone=tone,
        bar=_bar(interval, change),
        rows=None if rows is None else int(rows),
    )


def _judge(fields: Fields) -> tuple[str, str]:
    p, difference = number(fields.get("p_value")), number(fields.get("difference"))
    if p is None or difference is None:
        return "not compared", "flat"
    if p >= LEVEL or difference == 0:
        return "no difference shown", "flat"
    return ("better", "good") if (difference < 0) == _lower(fields) else ("worse", "bad")


def _lower(fields: Fields) -> bool:
    return fields.get("higher_is_better") is False


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def _bar(interval: tuple[float, float] | None, difference: float | None) -> Bar | None:
    if interval is None or difference is None:
        return None
    reach = max(abs(interval[0]), abs(interval[1]), abs(difference)) * 1.1
    if reach == 0:
        return None
    left, right = (50 + 50 * end / reach for end in interval)
    middle = 50 + 50 * difference / reach
    return Bar(round(left, 2), round(right - left, 2), round(middle, 2))


def _meaning(name: str) -> tuple[str, str]:
    """Label and meaning of a figure; of one of several tasks, with the task's name before it."""
    task, dot, plain = name.rpartition(".")
    label, meaning = MEANINGS.get(plain, (plain.replace("_", " "), ""))
    return (f"{task}: {label}" if dot else label), meaning


def _label(name: str) -> str:
    label = _meaning(name)[0]
    # "Perplexity" stands inside a sentence; "BLEU" and "chrF" keep their capitals.
    return label.lower() if label[1:].islower() else label


def _plural(count: float, noun: str) -> str:
    return f"{count:,.0f} {noun}" + ("" if count == 1 else "s")


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
