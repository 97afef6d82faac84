"""Accuracy and F1 are scikit-learn's, on whatever classes are true, said, or neither."""

from __future__ import annotations

import math
import time
import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from luthier.core.records import Origin, Scored
from luthier.evaluation.statistics import bootstrap, compare, randomisation
from luthier.metrics import accuracy, f1

KINDS = ("precision", "recall", "f1")


def scored(probabilities: Any, label: int | tuple[int, ...]) -> Scored:
    chances = np.asarray(probabilities, dtype=np.float32)
    return Scored(Origin("test", 1), probabilities=chances, label=label)


def one_hot(said: int, classes: int) -> list[float]:
    return [0.9 if index == said else 0.1 / classes for index in range(classes)]


def value(metric: accuracy.Metric | f1.Metric, name: str) -> float:
    return float(metric.reduce(name, metric.rows()[name].sum(axis=0)))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_one_label_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    # Some classes never true, some never said, some neither.
    true = rng.choice(rng.integers(0, classes, size=max(1, classes - 1)), size=40)
    guess = rng.choice(rng.integers(0, classes, size=max(1, classes - 2)), size=40)
    said = np.where(rng.random(40) < 0.5, true, guess)
    right, mean = accuracy.Metric(), f1.Metric()
    for t, s in zip(true, said, strict=True):
        right.update(scored(one_hot(int(s), classes), int(t)))
        mean.update(scored(one_hot(int(s), classes), int(t)))
    assert value(right, "accuracy") == pytest.approx(accuracy_score(true, said))
    for average in ("macro", "weighted"):
        theirs = precision_recall_fscore_support(true, said, average=average)
        for kind, expected in zip(KINDS, theirs, strict=False):
            assert value(mean, f"{kind}_{average}") == pytest.approx(expected, abs=1e-12), kind


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_several_labels_are_scikit_learns_over_labels_that_occur(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, classes = 30, 6
    chances = rng.random((rows, classes)).astype(np.float32)
    true = rng.random((rows, classes)) < 0.3
    true[:, 4] = False  # never true
    chances[:, 3] = 0.1  # never said
    true[:, 5], chances[:, 5] = False, 0.1  # neither
    right, mean = accuracy.Metric(), f1.Metric()
    for row, flags in zip(chances, true, strict=True):
        label = tuple(int(index) for index in np.flatnonzero(flags))
        right.update(scored(row, label))
        mean.update(scored(row, label))
    said = chances > 0.5
    assert value(right, "accuracy") == pytest.approx(accuracy_score(true, said))
    seen = np.flatnonzero((said | true).any(axis=0))
    for average in ("macro", "weighted"):
        theirs = precision_recall_fscore_support(true, said, labels=seen, average=average)
        for kind, expected in zip(KINDS, theirs, strict=False):
            assert value(mean, f"{kind}_{average}") == pytest.approx(expected, abs=1e-12), kind


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_every_resample_is_scikit_learns_on_the_rows_drawn() -> None:
    rng = np.random.default_rng(3)
    true, said = rng.integers(0, 8, size=(2, 14))
    metric = f1.Metric()
    for t, s in zip(true, said, strict=True):
        metric.update(scored(one_hot(int(s), 8), int(t)))
    draws = rng.integers(0, 14, size=(20, 14))
    for average in ("macro", "weighted"):
        name = f"f1_{average}"
        found = metric.reduce(name, metric.rows()[name][draws].sum(axis=1))
        theirs = [
            precision_recall_fscore_support(true[d], said[d], average=average)[2] for d in draws
        ]
        np.testing.assert_allclose(found, theirs, atol=1e-12)


def test_several_labels_must_be_right_to_the_last() -> None:
    cases = [
        ([0.9, 0.6, 0.1], (0, 1), 1.0),
        ([0.9, 0.6, 0.1], (0,), 0.0),
        ([0.9, 0.4, 0.1], (0, 1), 0.0),
        ([0.5, 0.4, 0.1], (), 1.0),  # 0.5 itself is not above one half
        ([0.5, 0.4, 0.1], (0,), 0.0),
        ([0.9, 0.6, 0.1], (1, 0), 1.0),
    ]
    for chances, label, expected in cases:
        metric = accuracy.Metric()
        metric.update(scored(chances, label))
        assert value(metric, "accuracy") == expected, (chances, label)


def test_of_classes_alike_the_first_is_said() -> None:
    metric = accuracy.Metric()
    metric.update(scored([0.4, 0.4, 0.2], 0))
    metric.update(scored([0.4, 0.4, 0.2], 1))
    assert value(metric, "accuracy") == 0.5


def test_no_label_anywhere_has_no_weighted_mean() -> None:
    metric = f1.Metric()
    metric.update(scored([0.1, 0.2], ()))
    assert math.isnan(value(metric, "f1_macro"))
    metric.update(scored([0.9, 0.2], ()))
    assert value(metric, "f1_macro") == 0
    assert math.isnan(value(metric, "f1_weighted"))


def test_a_number_is_no_class() -> None:
    for kind in (accuracy, f1):
        metric = kind.Metric()
        metric.update(
            Scored(Origin("test", 1), probabilities=np.array([2.0], dtype=np.float32), label=2.0)
        )
        assert not any(rows.any() for rows in metric.rows().values())


def test_a_label_beyond_the_model_is_a_programmers_mistake() -> None:
    with pytest.raises(AssertionError, match="no such class"):
        accuracy.Metric().update(scored([0.5, 0.5], 2))


def test_all_names_are_drawn_at_once_and_stay_small() -> None:
    def fill(noise: float) -> f1.Metric:
        rng = np.random.default_rng(0)
        metric = f1.Metric()
        for true in rng.integers(0, 77, size=1500):
            said = int(rng.integers(77)) if rng.random() < noise else int(true)
            metric.update(scored(one_hot(said, 77), int(true)))
        return metric

    before, after = fill(0.98), fill(0.1)
    assert len({id(rows) for rows in after.rows().values()}) == 1
    tracemalloc.start()
    start = time.process_time()
    found = compare(before, after, resamples=2000)
    seconds = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(found) == list(f1.Metric.names)
    assert peak < 300e6, peak
    assert seconds < 20, seconds
    for one in found.values():
        assert one["interval"] is not None
        assert one["interval"][0] > 0.5


def test_names_drawn_together_have_the_figures_of_each_alone() -> None:
    rng = np.random.default_rng(1)
    before, after = f1.Metric(), f1.Metric()
    for true, first, second in rng.integers(0, 4, size=(60, 3)):
        before.update(scored(one_hot(int(first), 4), int(true)))
        after.update(scored(one_hot(int(second if rng.random() < 0.9 else true), 4), int(true)))
    found = compare(before, after, resamples=400, seed=5)
    for name, one in found.items():
        pair, reduce = (before.rows()[name], after.rows()[name]), partial(after.reduce, name)
        alone = bootstrap(*pair, reduce, resamples=400, seed=5)
        sides = one["before_interval"], one["after_interval"], one["interval"]
        assert [list(interval) for interval in alone] == list(sides)
        assert one["p_value"] == randomisation(*pair, reduce, resamples=400, seed=5)
    assert len({one["p_value"] for one in found.values()}) > 1
