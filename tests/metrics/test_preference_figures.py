"""Figures of preferences against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from luthier.core import kinds
from luthier.core.records import Origin, Scored
from luthier.metrics._answers import differences


def value(kind: str, name: str, examples: list[Scored]) -> float:
    metric: Any = kinds.build("metrics", kinds.config("metrics", kind))
    for example in examples:
        metric.update(example)
    return float(metric.reduce(name, metric.rows()[name].sum(axis=0)))


def scored(*scores: float, lengths: tuple[int, ...] = (), label: int | None = None) -> Scored:
    return Scored(
        Origin("made", 1),
        scores=np.array(scores),
        lengths=np.array(lengths) if lengths else None,
        label=label,
    )


def test_accuracy_and_margin_are_means_over_prompts() -> None:
    examples = [scored(2.0, 1.0), scored(0.0, 3.0), scored(1.0, 1.0), scored(3.0, 1.0, 2.0)]
    accuracy = value("preference", "preference_accuracy", examples)
    assert accuracy == pytest.approx((1 + 0 + 0.5 + 2 / 3) / 4)
    margin = value("preference", "preference_margin", examples)
    assert margin == pytest.approx((1 - 3 + 0 + 2 / 3) / 4)


def test_a_margin_that_says_how_likely_agreement_is_is_calibrated() -> None:
    """Told right three times in four, with a probability of three in four."""
    apart = math.log(3)
    examples = [scored(apart, 0.0)] * 3 + [scored(0.0, apart)]
    kind, name = "preference_calibration", "preference_calibration_error"
    assert value(kind, name, examples) == pytest.approx(0, abs=1e-12)
    assert value(kind, name, [scored(apart, 0.0)]) == pytest.approx(0.25)
    log_loss = value(kind, "preference_log_loss", examples)
    assert log_loss == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)


def test_a_ranking_weighs_as_much_as_a_pair_in_the_calibration() -> None:
    kind, name = "preference_calibration", "preference_calibration_error"
    [pair, ranking] = [scored(2.0, 0.0)], [scored(4.0, 2.0, 0.0)]
    assert 0 < value(kind, name, pair) < 0.2
    both = value(kind, name, [*pair, *ranking])
    expected = (value(kind, name, pair) + value(kind, name, ranking)) / 2
    assert both == pytest.approx(expected)


def test_length_is_held_against_score_within_a_prompt() -> None:
    name = "length_correlation"
    paid = [scored(2.0, 1.0, lengths=(20, 10)), scored(-5.0, -4.0, lengths=(100, 110))]
    assert value("length_bias", name, paid) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=3), rng.integers(1, 50, size=3)) for _ in range(40)]
    made = [scored(*s, lengths=tuple(map(int, n))) for s, n in pairs]
    x = np.concatenate([s - s.mean() for s, _ in pairs])
    y = np.concatenate([n - n.mean() for _, n in pairs])
    assert value("length_bias", name, made) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert math.isnan(value("length_bias", name, [scored(1.0, 1.0, lengths=(3, 9))]))


def test_thumbs_need_both_kinds() -> None:
    liked = [scored(1.0, label=1), scored(2.0, label=1)]
    assert math.isnan(value("thumbs", "thumb_gap", liked))
    assert value("thumbs", "thumb_gap", [*liked, scored(-1.0, label=0)]) == 2.5


def test_every_pair_of_a_ranking_is_looked_at() -> None:
    assert len(differences(np.arange(5.0))) == 10
    assert len(differences(np.array([1.0]))) == 0
    assert len(differences(None)) == 0
