"""Entities as seqeval counts them: precision, recall and F1, of broken sequences too."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

from luthier.core.records import Origin, Scored
from luthier.core.tags import Entity, entities
from luthier.evaluation.tagging import entity_figures
from luthier.metrics.entities import Metric


def scored(true: list[list[str]], said: list[list[str]]) -> list[Scored]:
    return [
        Scored(Origin("t", i + 1), spans=tuple(entities(a)), said_spans=tuple(entities(b)))
        for i, (a, b) in enumerate(zip(true, said, strict=True))
    ]


def figures(examples: list[Scored]) -> dict[str, float]:
    metric = Metric()
    for each in examples:
        metric.update(each)
    return {name: float(metric.reduce(name, r.sum(0))) for name, r in metric.rows().items()}


def sequences(seed: int, prefixes: str) -> tuple[list[list[str]], list[list[str]]]:
    """True tags, and said ones that often agree and are often broken."""
    draw = random.Random(seed)
    tags = ["O", "O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("A", "B", "C"))]
    true = [draw.choices(tags, k=draw.randint(1, 12)) for _ in range(40)]
    said = [[tag if draw.random() < 0.8 else draw.choice(tags) for tag in row] for row in true]
    return true, said


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "I"])
@pytest.mark.parametrize("seed", range(5))
def test_figures_are_seqevals(seed: int, prefixes: str) -> None:
    theirs = pytest.importorskip("seqeval.metrics")
    true, said = sequences(seed, prefixes)
    found = figures(scored(true, said))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("f1", "precision", "recall"):
            expected = getattr(theirs, f"{name}_score")(true, said)
            assert found[f"entity_{name}"] == pytest.approx(expected, abs=1e-12)
        report = theirs.classification_report(true, said, output_dict=True)
    names = [f"{prefix}-{kind}" for prefix in prefixes for kind in "ABC"]
    per_type = entity_figures(names, None, scored(true, said))
    assert per_type is not None
    for one in per_type["per_type"]:
        expected = report[one["name"]]
        assert one["f1"] == pytest.approx(expected["f1-score"])
        assert one["precision"] == pytest.approx(expected["precision"])
        assert one["recall"] == pytest.approx(expected["recall"])
        assert one["support"] == expected["support"]
        assert one["f1_before"] is None


def test_an_entity_counts_only_whole_and_of_its_type() -> None:
    true = (Entity(0, 2, "A"), Entity(3, 5, "B"), Entity(6, 7, "A"))
    said = (Entity(0, 2, "A"), Entity(3, 4, "B"), Entity(6, 7, "B"), Entity(8, 9, "A"))
    found = figures([Scored(Origin("t", 1), spans=true, said_spans=said)])
    assert found == pytest.approx(
        {"entity_precision": 1 / 4, "entity_recall": 1 / 3, "entity_f1": 2 / 7}
    )


def test_without_entities_there_is_nothing_right() -> None:
    empty = Scored(Origin("t", 1), spans=(), said_spans=())
    assert figures([empty]) == {"entity_f1": 0, "entity_precision": 0, "entity_recall": 0}
    missing = Scored(Origin("t", 1), spans=(Entity(0, 1, "A"),))
    assert all(np.isnan(value) for value in figures([missing]).values())


def test_figures_by_type_know_the_model_before() -> None:
    true, said = sequences(0, "BI")
    found = entity_figures(["O", "B-A"], scored(true, true), scored(true, said))
    assert found is not None
    assert [one["name"] for one in found["per_type"]] == ["A", "B", "C"]
    assert all(one["f1_before"] == 1 for one in found["per_type"])
    assert entity_figures(["X"], None, [Scored(Origin("t", 1))]) is None
