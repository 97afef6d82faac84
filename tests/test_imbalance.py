"""Rare classes: weights, the focal loss and drawing by class find more of them, in real training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import classifiers
import numpy as np
import pytest

import luthier
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.inspection import inspect

#: Words that a class uses often and the other one seldom.
WORDS = {"common": "abcdef", "rare": "uvwxyz"}


def rows(common: int, rare: int, seed: int) -> list[dict[str, str]]:
    """Texts of eight letters, of which five on average are the class's own."""
    rng = np.random.default_rng(seed)
    made = []
    for label, count in (("common", common), ("rare", rare)):
        other = WORDS["rare" if label == "common" else "common"]
        for _ in range(count):
            letters = [rng.choice(list(WORDS[label] if rng.random() < 0.62 else other)) for _ in range(8)]
            made.append({"text": " ".join(letters), "label": label})
    return made


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    folder = tmp_path_factory.mktemp("imbalance")
    base = classifiers.saved(folder / "base")
    found: dict[str, Any] = {}

    def train(data: dict[str, Any], objective: dict[str, Any]) -> Any:
        name = f"{data} {objective}"
        if name not in found:
            recipe = recipe_of(base, folder / str(len(found)), data, objective)
            found[name] = luthier.train(recipe, quiet=True)
        return found[name]

    return train


def recipe_of(base: Path, output: Path, data: Any, objective: Any) -> dict[str, Any]:
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
            "max_steps": 60,
            "epochs": 99,
            "learning_rate": 2e-3,
            "precision": "float32",
            "device": "cpu",
            "threads": 1,
            "trackers": [],
        },
        "evaluation": {"samples": 0, "resamples": 100, "before": False},
        "output": str(output),
    }
