"""Calibration and retrieval: parity with plain loops and scikit-learn, golden values."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from luthier.core.records import Origin, Scored
from luthier.metrics import calibration, retrieval
from luthier.ops.calibration import BINS


def filled(chances: np.ndarray, labels: list[int] | list[tuple[int, ...]]) -> calibration.Metric:
    made = calibration.Metric()
    for line, (row, label) in enumerate(zip(chances, labels, strict=True), 1):
        made.update(Scored(Origin("t", line), probabilities=row.astype(np.float32), label=label))
    return made


def value(metric: calibration.Metric | retrieval.Metric, name: str) -> float:
    return float(metric.reduce(name, metric.rows()[name].sum(axis=0)))


def drawn(count: int = 300) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(4, 0.4), size=count)
    return chances, [int(rng.choice(4, p=row**0.5 / (row**0.5).sum())) for row in chances]


def test_the_calibration_error_is_the_papers() -> None:
    chances, labels = drawn()
    sure, right = chances.max(1), chances.argmax(1) == np.array(labels)
    expected = 0.0
    for place in range(BINS):
        inside = (sure > place / BINS) & (sure <= (place + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert value(filled(chances, labels), "calibration_error") == pytest.approx(expected, abs=1e-6)
    assert expected > 0.05, "these are too sure of themselves"


def test_brier_and_log_loss_are_scikit_learns() -> None:
    chances, labels = drawn()
    metric = filled(chances, labels)
    assert value(metric, "log_loss") == pytest.approx(log_loss(labels, chances), rel=1e-5)
    theirs = brier_score_loss(labels, chances, labels=range(4), scale_by_half=False)
    assert value(metric, "brier_score") == pytest.approx(theirs, rel=1e-5)


def test_of_several_labels_every_class_is_held_against_its_truth() -> None:
    chances = np.array([[0.9, 0.2], [0.9, 0.2]])
    metric = filled(chances, [(0,), (0, 1)])
    expected = (2 * 0.1 + abs(1 - 0.4)) / 4
    assert value(metric, "calibration_error") == pytest.approx(expected, abs=1e-6)
    assert value(metric, "brier_score") == pytest.approx((0.05 + 0.65) / 2, abs=1e-6)


def test_one_certain_mistake_is_finite() -> None:
    metric = filled(np.array([[1.0, 0.0]]), [1])
    assert np.isfinite(value(metric, "log_loss"))
    assert value(metric, "calibration_error") == pytest.approx(1)
    assert value(metric, "brier_score") == pytest.approx(2)


def test_retrieval_figures_of_known_ranks() -> None:
    metric = retrieval.Metric()
    for line, rank in enumerate((1, 2, 10, 11), 1):
        metric.update(Scored(Origin("t", line), rank=rank))
    assert [value(metric, n) for n in ("recall_1", "recall_5", "recall_10")] == [0.25, 0.5, 0.75]
    assert value(metric, "mrr") == pytest.approx((1 + 0.5 + 0.1 + 1 / 11) / 4)
    gains = [1, 1 / np.log2(3), 1 / np.log2(11), 0]
    assert value(metric, "ndcg_10") == pytest.approx(np.mean(gains))
