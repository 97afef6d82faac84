"""What a run that learned from its own samples earned over time, and what it said."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.evaluation import report_words as words
from luthier.evaluation.report_data import Contents, Fields, mapping, number
from luthier.evaluation.report_plots import Chart, Series, chart

#: Steps whose answers are shown, and answers of each.
_STEPS, _EACH = 8, 2
#: Figures that are drawn together: key of the chart, its title, figure -> its name in the legend.
_CHARTS = (
    ("rollout_kl", "Divergence from the start", {"kl": "KL, nats a token"}),
    ("rollout_length", "Length of answers", {"length": "Tokens"}),
    (
        "rollout_shares",
        "Shares of answers",
        {"unfinished": "Not ended", "duplicate": "Said twice to a prompt"},
    ),
    (
        "rollout_hacking",
        "Does length buy reward?",
        {"length_reward": "Correlation of length and reward"},
    ),
    ("rollout_critic", "Value head", {"explained_variance": "Explained variance"}),
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """An answer that was sampled while training."""

    step: str
    prompt: str
    answer: str
    reward: str
    origin: str


def sampled(run: Contents) -> bool:
    """Whether the run learned from its own samples."""
    return any("rollout" in event for event in run.steps)


def charts(run: Contents) -> list[Chart]:
    """Reward in sum and by part, then what shows how it was earned."""
    names = sorted({name for event in run.steps for name in mapping(event.get("rollout"))})
    parts = [name for name in names if name.startswith("reward_")]
    lines = [
        Series("Training", "train", _rolled(run, "reward"), noisy=True),
        Series("Held out", "validation", _validated(run), marks=True),
    ]
    for i, name in enumerate(parts if len(parts) > 1 else ()):
        label, style = name.removeprefix("reward_"), f"term-{(i + 2) % 4 + 1}"
        lines.append(Series(label, style, _rolled(run, name), noisy=True))
    drawn = [chart("reward", "Reward", lines)]
    for key, title, figures in _CHARTS:
        known = [(name, label) for name, label in figures.items() if name in names]
        series = [
            Series(label, f"term-{i % 4 + 1}", _rolled(run, name), noisy=True)
            for i, (name, label) in enumerate(known)
        ]
        drawn.append(chart(key, title, series) if series else None)
    return [one for one in drawn if one is not None]


def drawn(run: Contents) -> list[Drawn]:
    """Answers of a few steps, spread over the run, the last one among them."""
    count = min(_STEPS, len(run.drawn))
    chosen = {round(i * (len(run.drawn) - 1) / max(1, count - 1)) for i in range(count)}
    found = []
    for place in sorted(chosen):
        event = run.drawn[place]
        said = event.get("samples")
        for each in said[:_EACH] if isinstance(said, list) else ():
            found.append(_drawn(event, mapping(each)))
    return found


def _drawn(event: Fields, sample: Fields) -> Drawn:
    reward = number(sample.get("reward"))
    return Drawn(
        f"{event['step']:,}",
        str(sample.get("prompt", "")),
        str(sample.get("answer", "")),
        "–" if reward is None else words.figure(reward),
        str(sample.get("origin", "")),
    )


def _rolled(run: Contents, name: str) -> list[tuple[float, float]]:
    pairs = ((e["step"], number(mapping(e.get("rollout")).get(name))) for e in run.steps)
    return [(float(step), value) for step, value in pairs if value is not None]


def _validated(run: Contents) -> list[tuple[float, float]]:
    pairs = ((e["step"], number(mapping(e.get("terms")).get("reward"))) for e in run.validations)
    return [(float(step), value) for step, value in pairs if value is not None]
