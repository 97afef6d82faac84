"""Intervals that cover, p-values that hold, figures of the textbooks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from luthier.core.records import Origin, Scored
from luthier.evaluation import statistics
from luthier.evaluation.statistics import Array, bootstrap, compare, mcnemar, randomisation, wilson
from luthier.metrics import bleu, exact_match, perplexity


def mean(totals: Array) -> Array:
    return np.asarray(totals[..., 0] / totals[..., 1])


def rows(values: Sequence[float] | Array) -> Array:
    return np.column_stack([values, np.ones(len(values))]).astype(np.float64)


def perplexities(losses: Sequence[float]) -> perplexity.Metric:
    metric = perplexity.Metric()
    for line, loss in enumerate(losses):
        kept = np.full(3, loss, dtype=np.float32)
        metric.update(Scored(Origin("test", line + 1), losses=kept, bytes=5))
    return metric


def test_wilson_and_mcnemar_figures() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert mcnemar(10, 2) == mcnemar(2, 10) == pytest.approx(0.0386, abs=5e-5)


def test_wilson_is_scipys_and_stays_inside() -> None:
    for successes, n in ((0, 7), (7, 7), (3, 9), (480, 1000)):
        theirs = binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((theirs.low, theirs.high))
    assert all(math.isnan(bound) for bound in wilson(0, 0))


def test_mcnemar_is_the_binomial_test() -> None:
    for lost, gained in ((0, 0), (0, 5), (5, 5), (3, 11), (700, 900)):
        theirs = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
        assert mcnemar(lost, gained) == pytest.approx(theirs)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = np.zeros(3)
    trials = 300
    for trial in range(trials):
        before = rng.normal(2.0, 1.0, 60)
        after = before + rng.normal(0.3, 0.5, 60)
        found = bootstrap(rows(before), rows(after), mean, resamples=400, seed=trial)
        truth = (2.0, 2.3, 0.3)
        hits += [low <= value <= high for (low, high), value in zip(found, truth, strict=True)]
    assert np.all((hits / trials > 0.90) & (hits / trials < 0.985)), hits / trials


def test_pairing_makes_the_interval_of_the_difference_narrow() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(0, 5, 100)
    after = before - 0.5 + rng.normal(0, 0.1, 100)
    first, second, difference = bootstrap(rows(before), rows(after), mean, resamples=1000)
    assert difference[1] - difference[0] < 0.1 * (first[1] - first[0])
    assert difference[1] < 0
    assert second[0] < 0


def test_the_bootstrap_recomputes_the_metric_and_not_a_mean_of_scores() -> None:
    rng = np.random.default_rng(2)
    before = np.column_stack([rng.exponential(5, 40), rng.integers(1, 9, 40)])
    after = before * np.array([0.9, 1.0])
    first, _, _ = bootstrap(before, after, mean, resamples=3000, seed=0)
    draws = np.random.default_rng(9).integers(0, 40, size=(3000, 40))
    figures = before[draws].sum(axis=1)
    slow = np.quantile(figures[:, 0] / figures[:, 1], [0.025, 0.975])
    assert first == pytest.approx(tuple(slow), rel=0.05)


def test_chunks_make_no_difference_to_how_many_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=50)
    whole = bootstrap(rows(values), rows(values + 1), mean, resamples=500, seed=4)
    monkeypatch.setattr(statistics, "_CELLS", 50 * 7)
    assert sum(statistics._chunks(500, 50)) == 500
    parts = bootstrap(rows(values), rows(values + 1), mean, resamples=500, seed=4)
    np.testing.assert_allclose(whole, parts)


def test_same_seed_same_figures_and_another_seed_others() -> None:
    values = np.random.default_rng(5).normal(size=(2, 40))
    pair = rows(values[0]), rows(values[1])
    assert bootstrap(*pair, mean, resamples=200) == bootstrap(*pair, mean, resamples=200)
    assert bootstrap(*pair, mean, resamples=200) != bootstrap(*pair, mean, resamples=200, seed=1)
    first = randomisation(*pair, mean, resamples=200)
    assert first == randomisation(*pair, mean, resamples=200)


def test_randomisation_by_hand() -> None:
    # Differences +1, +2, +3: of the 8 swaps only none and all reach a gap of 6.
    before, after = rows([0.0, 0.0, 0.0]), rows([1.0, 2.0, 3.0])
    assert randomisation(before, after, mean) == 2 / 8
    # An equal pair more changes nothing: it is the same swaps twice over.
    assert randomisation(rows([0, 0, 0, 7]), rows([1, 2, 3, 7]), mean) == 2 / 8


def test_exact_and_sampled_p_values_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    before, after = rows(rng.normal(size=11)), rows(rng.normal(0.6, 1, size=11))
    exact = randomisation(before, after, mean)
    monkeypatch.setattr(statistics, "EXACT_PAIRS", 0)
    assert randomisation(before, after, mean, resamples=20_000) == pytest.approx(exact, abs=0.012)


def test_randomisation_is_near_the_t_test_on_normal_scores() -> None:
    rng = np.random.default_rng(7)
    before = rng.normal(size=80)
    after = before + rng.normal(0.25, 1, size=80)
    theirs = float(ttest_rel(before, after).pvalue)
    assert randomisation(rows(before), rows(after), mean) == pytest.approx(theirs, abs=0.01)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(8)
    found = np.array(
        [
            randomisation(rows(before), rows(after), mean, resamples=300)
            for before, after in rng.normal(size=(400, 2, 20))
        ]
    )
    for level in (0.05, 0.2, 0.5):
        assert (found <= level).mean() == pytest.approx(level, abs=0.06)


def test_the_smallest_p_value_is_never_zero() -> None:
    before = rows(np.arange(100.0))
    after = before + np.array([50.0, 0.0])
    assert randomisation(before, after, mean, resamples=999) == pytest.approx(0.001)


def test_equal_models_differ_in_nothing() -> None:
    same = perplexities([1.0, 2.0, 3.0])
    found = compare(same, perplexities([1.0, 2.0, 3.0]), resamples=200)["perplexity"]
    assert found["difference"] == 0
    assert found["interval"] == [0, 0]
    assert found["p_value"] == 1


def test_compare_says_everything_and_is_json() -> None:
    rng = np.random.default_rng(10)
    losses = rng.normal(4.4, 0.3, 60)
    before, after = perplexities(list(losses)), perplexities(list(losses - rng.normal(3, 0.5, 60)))
    found = compare(before, after, resamples=500, seed=3)
    assert list(found) == ["perplexity", "bits_per_byte"]
    one: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))["perplexity"]
    assert one["difference"] == pytest.approx(one["after"] - one["before"])
    for value, interval in (
        (one["before"], one["before_interval"]),
        (one["after"], one["after_interval"]),
        (one["difference"], one["interval"]),
    ):
        assert interval[0] < value < interval[1]
    assert one["p_value"] == pytest.approx(1 / 501)
    assert one["higher_is_better"] is False
    assert one["rows"] == 60
    assert found == compare(before, after, resamples=500, seed=3)


def test_what_has_no_finite_value_is_none() -> None:
    empty = compare(perplexity.Metric(), perplexity.Metric(), resamples=100)["perplexity"]
    assert {empty[key] for key in ("before", "after", "difference", "p_value", "interval")} == {
        None
    }
    hopeless = compare(perplexities([3000.0] * 20), perplexities([1.0] * 20), resamples=100)
    assert hopeless["perplexity"]["before"] is None
    assert hopeless["perplexity"]["interval"] is None
    assert hopeless["perplexity"]["after"] == pytest.approx(math.e)
    assert hopeless["perplexity"]["after_interval"] is not None
    assert hopeless["bits_per_byte"]["difference"] is not None


def test_one_example_has_no_interval() -> None:
    found = compare(perplexities([4.0]), perplexities([1.0]), resamples=100)["perplexity"]
    assert found["interval"] is None
    assert found["p_value"] == 1


def test_models_scored_on_different_examples_are_a_programmers_mistake() -> None:
    with pytest.raises(AssertionError, match="different examples"):
        compare(perplexities([1.0, 2.0]), perplexities([1.0]), resamples=100)


def test_rows_without_an_answer_do_not_count() -> None:
    def build(answers: Sequence[str | None]) -> exact_match.Metric:
        metric = exact_match.Metric()
        for line, answer in enumerate(answers):
            metric.update(Scored(Origin("test", line + 1), answer=answer, references=("yes",)))
        return metric

    found = compare(build(["no", "no", None]), build(["yes", "no", None]), resamples=100)
    assert found["exact_match"]["rows"] == 2
    assert found["exact_match"]["after"] == 0.5


def test_a_corpus_metric_is_compared_as_a_corpus() -> None:
    def build(answers: Sequence[str]) -> bleu.Metric:
        metric = bleu.Metric()
        for line, answer in enumerate(answers):
            reference = f"the order number {line} was sent out this morning"
            metric.update(Scored(Origin("test", line + 1), answer=answer, references=(reference,)))
        return metric

    before = build([f"order {line} sent the morning" for line in range(30)])
    after = build([f"the order number {line} was sent this morning" for line in range(30)])
    found = compare(before, after, resamples=300)["bleu"]
    assert found["p_value"] == pytest.approx(1 / 301)
    assert found["interval"] is not None
    assert found["interval"][0] > 0
