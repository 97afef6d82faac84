"""Every metric in the folder keeps the contract: rows in order that sum, resample and reduce."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from luthier.core import kinds
from luthier.core.records import Floats, Origin, Scored
from luthier.core.tags import Entity

METRICS = kinds.names("metrics")
CLASSIFIED = frozenset({"classes", "logits"})


def build(kind: str) -> Any:
    return kinds.build("metrics", kinds.config("metrics", kind))


def examples(needs: frozenset[str], count: int = 9, seed: int = 0) -> list[Scored]:
    rng = np.random.default_rng(seed)
    text = "the cat sat on a mat while rain fell over old roofs"

    def sentence() -> str:
        return " ".join(rng.choice(text.split(), size=8))

    made = []
    for line in range(count):
        size = int(rng.integers(1, 7))
        chances = rng.dirichlet(np.ones(3)).astype(np.float32)
        made.append(
            Scored(
                Origin("test", line + 1),
                losses=rng.exponential(size=size).astype(np.float32),
                correct=rng.random(size) < 0.5,
                bytes=4 * size,
                answer=sentence(),
                references=(sentence(), sentence()),
                probabilities=_probabilities(needs, chances),
                label=_label(needs, rng),
                rank=int(rng.integers(1, 20)) if "ranks" in needs else None,
                reward=float(rng.normal()) if "rewards" in needs else None,
                spans=_spans(rng) if "spans" in needs else None,
                scores=_scores(needs, rng),
                lengths=rng.integers(1, 40, size=3) if "preferences" in needs else None,
                said_spans=_spans(rng) if "spans" in needs else None,
            )
        )
    return made


def _probabilities(needs: frozenset[str], chances: Floats) -> Floats | None:
    if "numbers" in needs:
        return chances[:1]
    return chances if needs & CLASSIFIED else None


def _scores(needs: frozenset[str], rng: np.random.Generator) -> Floats | None:
    count = 3 if "preferences" in needs else int("thumbs" in needs)
    return rng.normal(size=count).astype(np.float32) if count else None


def _spans(rng: np.random.Generator) -> tuple[Entity, ...]:
    kinds = rng.choice(["A", "B", ""], size=6)
    return tuple(Entity(i, i + 1, str(kind)) for i, kind in enumerate(kinds) if kind)


def _label(needs: frozenset[str], rng: np.random.Generator) -> int | float | None:
    if "numbers" in needs:
        return float(rng.normal())
    if "thumbs" in needs:
        return int(rng.integers(2))
    return int(rng.integers(3)) if needs & CLASSIFIED else None


@pytest.fixture(params=METRICS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_configuration_names_its_file(kind: str) -> None:
    settings = kinds.config("metrics", kind)
    assert settings.kind == kind
    assert kinds.config("metrics", json.loads(settings.model_dump_json())) == settings
    assert kinds.summary("metrics", kind)


def test_unknown_settings_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="no_such_setting"):
        kinds.config("metrics", {"kind": kind, "no_such_setting": 1})


def test_class_attributes(kind: str) -> None:
    metric = type(build(kind))
    assert metric.names
    assert len(set(metric.names)) == len(metric.names)
    known = {
        "losses",
        "logits",
        "answers",
        "classes",
        "numbers",
        "spans",
        "ranks",
        "preferences",
        "thumbs",
        "rewards",
    }
    assert metric.needs <= known
    assert isinstance(metric.higher_is_better, bool)


def test_a_row_an_example(kind: str) -> None:
    metric = build(kind)
    for name, rows in metric.rows().items():
        assert rows.shape[0] == 0, name
        assert rows.ndim == 2, name
    for scored in examples(metric.needs):
        metric.update(scored)
    found = metric.rows()
    assert set(found) == set(metric.names)
    for rows in found.values():
        assert rows.shape[0] == 9
        assert rows.dtype == np.float64
        assert np.isfinite(rows).all()


def test_rows_come_in_order_of_the_updates(kind: str) -> None:
    one, all_ = build(kind), build(kind)
    scored = examples(one.needs)
    for example in scored:
        all_.update(example)
    one.update(scored[4])
    for name in one.names:
        np.testing.assert_array_equal(one.rows()[name][0], all_.rows()[name][4])


def test_reduce_is_vectorised_over_leading_axes(kind: str) -> None:
    metric = build(kind)
    for scored in examples(metric.needs, count=30):
        metric.update(scored)
    for name, rows in metric.rows().items():
        totals = rows.reshape(2, 3, 5, rows.shape[1]).sum(axis=2)
        together = np.asarray(metric.reduce(name, totals))
        assert together.shape == (2, 3)
        for place in np.ndindex(2, 3):
            assert together[place] == pytest.approx(float(metric.reduce(name, totals[place])))


def test_nothing_to_measure_is_nan_and_no_warning(kind: str) -> None:
    metric = build(kind)
    for name, rows in metric.rows().items():
        with np.errstate(all="raise"):
            value = metric.reduce(name, rows.sum(axis=0))
        assert np.isnan(float(value)), "a number was made up"


def test_an_example_without_what_is_needed_counts_for_nothing(kind: str) -> None:
    bare, full = build(kind), build(kind)
    for scored in examples(bare.needs):
        bare.update(scored)
        full.update(scored)
    bare.update(Scored(Origin("test", 99)))
    for name in bare.names:
        assert len(bare.rows()[name]) == 10
        assert not bare.rows()[name][-1].any()
        values = [float(m.reduce(name, m.rows()[name].sum(axis=0))) for m in (bare, full)]
        assert values[0] == values[1]
