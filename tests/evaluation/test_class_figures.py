"""Figures class by class are scikit-learn's; the majority class is what a constant answer gets."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

from luthier.core.records import Origin, Scored
from luthier.evaluation.classes import class_figures
from luthier.evaluation.measure import measure
from luthier.metrics import accuracy, regression_error

NAMES = ("a", "b", "c", "d", "never")


def scored(probabilities: Any, label: int | tuple[int, ...] | float | None) -> Scored:
    chances = np.asarray(probabilities, dtype=np.float32)
    return Scored(Origin("test", 1), probabilities=chances, label=label)


def one(said: int, label: int) -> Scored:
    return scored(np.eye(len(NAMES))[said], label)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_one_label_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, said, earlier = rng.integers(0, 4, size=(3, 40))
    before = [one(int(s), int(t)) for s, t in zip(earlier, true, strict=True)]
    after = [one(int(s), int(t)) for s, t in zip(said, true, strict=True)]
    found = class_figures(NAMES, before, after)
    assert found is not None
    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert found["names"] == list(NAMES)
    labels = range(5)
    assert found["confusion"] == confusion_matrix(true, said, labels=labels).tolist()
    theirs = precision_recall_fscore_support(true, said, labels=labels, zero_division=0.0)
    once = precision_recall_fscore_support(true, earlier, labels=labels, zero_division=0.0)[2]
    for i, row in enumerate(found["per_class"]):
        assert row["name"] == NAMES[i]
        assert row["precision"] == pytest.approx(theirs[0][i])
        assert row["recall"] == pytest.approx(theirs[1][i])
        assert row["f1"] == pytest.approx(theirs[2][i])
        assert row["f1_before"] == pytest.approx(once[i])
        assert row["support"] == theirs[3][i]
    constant = int(np.bincount(true).argmax())
    assert found["majority"] == {
        "name": NAMES[constant],
        "accuracy": accuracy_score(true, np.full(40, constant)),
    }


def test_several_labels_are_told_label_by_label() -> None:
    rng = np.random.default_rng(0)
    chances = rng.random((30, 5))
    true = rng.random((30, 5)) < 0.4
    true[:9] = [False, True, True, False, False]
    after = [
        scored(row, tuple(int(i) for i in np.flatnonzero(flags)))
        for row, flags in zip(chances, true, strict=True)
    ]
    found = class_figures(NAMES, None, after)
    assert found is not None
    assert "confusion" not in found
    theirs = multilabel_confusion_matrix(true, chances.astype(np.float32) > 0.5)
    for row, ((_, wrong), (missed, right)) in zip(found["per_class"], theirs, strict=True):
        assert row["support"] == right + missed
        assert row["precision"] == pytest.approx(right / (right + wrong))
        assert row["recall"] == pytest.approx(right / (right + missed))
        assert row["f1_before"] is None
    constant = np.tile(true[0], (30, 1))
    assert found["majority"] == {"name": "b, c", "accuracy": accuracy_score(true, constant)}


def test_no_label_at_all_may_be_the_majority() -> None:
    after = [scored([0.9, 0.1], ()), scored([0.9, 0.1], ()), scored([0.9, 0.1], (0,))]
    found = class_figures(("a", "b"), None, after)
    assert found is not None
    assert found["majority"] == {"name": "", "accuracy": pytest.approx(2 / 3)}


def test_of_classes_alike_in_number_the_first_is_the_majority() -> None:
    found = class_figures(NAMES, None, [one(0, 2), one(0, 1), one(0, 2), one(0, 1)])
    assert found is not None
    assert found["majority"] == {"name": "b", "accuracy": 0.5}


def test_numbers_have_no_classes() -> None:
    assert class_figures((), None, [scored([0.3], 0.5), scored([0.3], 1.0)]) is None
    assert class_figures(NAMES, None, []) is None


def test_metrics_get_only_what_they_can_judge() -> None:
    rows = [
        scored([0.2, 0.8], 1),
        scored([0.2, 0.8], (1,)),
        scored([0.4], 0.5),
        scored([0.2, 0.8], None),
        Scored(Origin("test", 1), label=1),
    ]
    right, error = accuracy.Metric(), regression_error.Metric()
    measure([right, error], rows)
    assert right.rows()["accuracy"].tolist() == [[1, 1], [1, 1]]
    assert error.rows()["mean_absolute_error"][:, 1:].tolist() == [[pytest.approx(0.1), 1]]
