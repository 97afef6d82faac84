"""Rare classes are found by weights, the focal loss and drawing by class, in real training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import classifiers
import numpy as np
import pytest
import yaml

import luthier
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.core.rundir import RunDir
from luthier.inspection import inspect

#: Letters that a class uses three times in four, the other one's else.
LETTERS = {"common": list("abcdef"), "rare": list("uvwxyz")}
STEPS = 90


def rows(common: int, rare: int, seed: int) -> list[dict[str, str]]:
    """Texts of eight letters."""
    rng = np.random.default_rng(seed)

    def text(label: str) -> str:
        other = "rare" if label == "common" else "common"
        return " ".join(
            rng.choice(LETTERS[label if rng.random() < 0.75 else other]) for _ in range(8)
        )

    labels = ["common"] * common + ["rare"] * rare
    return [{"text": text(label), "label": label} for label in labels]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifiers.saved(tmp_path_factory.mktemp("imbalance") / "base")


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., luthier.Run]:
    """Trains, each recipe once."""
    folder, found = tmp_path_factory.mktemp("imbalance"), dict[str, luthier.Run]()

    def train(data: dict[str, Any], objective: dict[str, Any]) -> luthier.Run:
        name = f"{data} {objective}"
        if name not in found:
            values = recipe(base, folder / str(len(found)), data, objective)
            found[name] = luthier.train(values, quiet=True)
        return found[name]

    return train


def recipe(base: Path, output: Path, data: Any, objective: Any) -> dict[str, Any]:
    return {
        "model": {"name": str(base), "dropout": 0.0},
        "objective": {"kind": "classification", "pooling": "mean", **objective},
        "method": "full",
        "data": {
            "train": rows(180, 20, 0),
            "validation": rows(100, 100, 1),
            "check": "off",
            **data,
        },
        "training": {
            "max_steps": STEPS,
            "epochs": 99,
            "learning_rate": 2e-3,
            "precision": "float32",
            "evaluate_every": STEPS,
            "device": "cpu",
            "threads": 1,
            "trackers": [],
        },
        "evaluation": {"metrics": ["f1"], "samples": 0, "resamples": 100, "before": False},
        "output": str(output),
    }


@pytest.mark.parametrize(
    ("data", "objective"),
    [
        ({}, {"class_weights": "inverse"}),
        ({}, {"focal": 2.0}),
        ({"balance": "oversample"}, {}),
        ({"balance": "undersample"}, {}),
    ],
)
def test_macro_f1_rises_where_one_class_is_rare(
    tuned: Callable[..., luthier.Run], data: Any, objective: Any
) -> None:
    """Nine rows in ten are of one class, and after as many steps a plain loss says nothing else."""
    plain, better = (
        run.metrics["f1_macro"]["after"] for run in (tuned({}, {}), tuned(data, objective))
    )
    assert better > plain + 0.2
    assert better > 0.6


def test_weights_that_were_found_stand_in_the_runs_recipe(
    tuned: Callable[..., luthier.Run],
) -> None:
    run = tuned({}, {"class_weights": "inverse"})
    written = yaml.safe_load(RunDir(run.path).recipe.read_text())["objective"]
    assert written["class_weights"] == pytest.approx({"common": 0.2, "rare": 1.8})


def test_an_epoch_of_balanced_classes_is_inspected_as_it_is_trained(
    tuned: Callable[..., luthier.Run], base: Path, tmp_path: Path
) -> None:
    """Held-out rows are as they were."""
    run = tuned({"balance": "oversample"}, {})
    environment = yaml.safe_load(RunDir(run.path).environment.read_text())
    groups = environment["epoch"]["groups"]
    assert groups == {
        "common": {"examples": 180, "drawn": 180},
        "rare": {"examples": 20, "drawn": 180},
    }
    assert environment["data"]["validation"]["examples"] == 200
    values = recipe(base, tmp_path / "run", {"balance": "undersample"}, {})
    [seen] = inspect(recipes.load(values, ["training.max_steps=null", "training.epochs=2"]))
    assert seen.drawing is not None
    assert seen.drawing.draws == (20, 20)
    assert seen.steps == (6, 3)


def test_several_labels_are_not_balanced(base: Path, tmp_path: Path) -> None:
    several = [{"text": row["text"], "label": [row["label"]]} for row in rows(20, 20, 0)]
    data = {"train": several, "validation": 0, "balance": "oversample"}
    with pytest.raises(RecipeError, match="these have no class or several"):
        luthier.train(recipe(base, tmp_path / "run", data, {}), quiet=True)
