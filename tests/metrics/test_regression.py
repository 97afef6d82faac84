"""Errors and fit of predicted numbers are scikit-learn's and scipy's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from luthier.core.records import Origin, Scored
from luthier.evaluation.statistics import compare
from luthier.metrics import regression_error, regression_fit


def scored(said: float, true: float) -> Scored:
    return Scored(Origin("test", 1), probabilities=np.array([said], dtype=np.float32), label=true)


def value(name: str, said: Any, true: Any) -> float:
    kind = regression_fit if name in regression_fit.Metric.names else regression_error
    metric = kind.Metric()
    for x, y in zip(said, true, strict=True):
        metric.update(scored(float(x), float(y)))
    return float(metric.reduce(name, metric.rows()[name].sum(axis=0)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("offset", [0.0, 3.0, 2000.0])
def test_figures_are_the_trusted_libraries(seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    true = rng.normal(offset, 1.3, size=30)
    said = (0.7 * true + rng.normal(0.3 * offset, 0.5, size=30)).astype(np.float32)
    theirs = {
        "mean_squared_error": mean_squared_error(true, said.astype(np.float64)),
        "mean_absolute_error": mean_absolute_error(true, said.astype(np.float64)),
        "r2": r2_score(true, said.astype(np.float64)),
        "pearson": pearsonr(said.astype(np.float64), true).statistic,
    }
    for name, expected in theirs.items():
        assert value(name, said, true) == pytest.approx(expected, rel=1e-6), name


def test_perfect_predictions() -> None:
    true = [1.0, 2.0, 5.0]
    assert value("mean_squared_error", true, true) == 0
    assert value("r2", true, true) == 1
    assert value("pearson", true, true) == 1
    assert value("pearson", [-1.0, -2.0, -5.0], true) == -1


@pytest.mark.parametrize("constant", [0.0, 0.1, 7.3, 1e6])
def test_numbers_all_the_same_have_no_correlation(constant: float) -> None:
    same = [constant] * 11
    moving = list(np.arange(11.0))
    assert math.isnan(value("pearson", same, moving))
    assert math.isnan(value("pearson", moving, same))
    assert math.isnan(value("r2", moving, same))
    assert value("r2", [5.0] * 11, moving) == pytest.approx(0)


def test_a_class_is_no_number() -> None:
    for kind in (regression_error, regression_fit):
        metric = kind.Metric()
        metric.update(
            Scored(Origin("test", 1), probabilities=np.array([0.2, 0.8], dtype=np.float32), label=1)
        )
        assert not any(rows.any() for rows in metric.rows().values())


def test_less_error_and_more_fit_are_improvements() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=60)
    for kind, sign in ((regression_error, -1), (regression_fit, 1)):
        before, after = kind.Metric(), kind.Metric()
        for y in true:
            before.update(scored(float(rng.normal()), float(y)))
            after.update(scored(float(y + 0.1 * rng.normal()), float(y)))
        for one in compare(before, after, resamples=500).values():
            assert one["higher_is_better"] is (sign > 0)
            assert one["difference"] is not None
            assert sign * one["difference"] > 0
            assert one["p_value"] == pytest.approx(1 / 501)
