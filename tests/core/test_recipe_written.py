"""A resolved recipe reads back equal; rows in memory stay where they are and are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from refusals import GOOD, only, refused

from luthier.core import recipe as recipes
from luthier.core.recipe import EvaluationSpec, Recipe, TrainingSpec, load


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test writes its recipe; named as a user names it, without a folder."""
    monkeypatch.chdir(tmp_path)
    return Path("recipe.yaml")


@pytest.mark.parametrize(
    "source",
    [
        GOOD,
        {
            "model": {"architecture": "llama", "config": {"hidden_size": 64, "x": [1, None]},
                      "tokenizer": {"vocab_size": 400}},
            "objective": "language_modeling",
            "method": {"kind": "lora", "targets": ["q_proj", "v_proj"], "alpha": 1.5},
            "data": {"train": ["a.txt", Path("b/c.txt")], "validation": Path("d.txt"),
                     "template": "$${x} Q: {prompt}\nA:", "columns": {"text": "körper: ☃"}},
            "training": {"learning_rate": 2e-5, "betas": [0.9, 0.99], "trackers": ["wandb"],
                         "early_stopping": {"patience": 2}, "clip_norm": None},
            "evaluation": {"metrics": ["perplexity", {"kind": "rouge", "stemmer": True}]},
            "output": Path("runs/x"),
        },
        {"model": "m", "stages": [{"data": {"train": Path("x"), "validation": ["y"]}},
                                  {"data": {"train": "z"}, "objective": "language_modeling",
                                   "evaluation": {"metrics": ["perplexity"]}}]},
    ],
)  # fmt: skip
def test_a_resolved_recipe_reads_back_equal(source: dict[str, Any], file: Path) -> None:
    recipe = load(source)
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    again = load(file)
    assert again == recipe
    assert again.resolved() == recipe.resolved()
    assert again.to_yaml() == recipe.to_yaml()
    assert recipes.stages(again) == recipes.stages(recipe)


def test_every_default_is_written_out() -> None:
    resolved = load(GOOD).resolved()
    assert set(resolved) == set(Recipe.model_fields)
    assert set(resolved["training"]) == set(TrainingSpec.model_fields)
    assert set(resolved["evaluation"]) == set(EvaluationSpec.model_fields)
    assert set(resolved["data"]) == set(recipes.DataSpec.model_fields)


def test_parts_given_as_models() -> None:
    from luthier.methods.lora import Config

    values = {**GOOD, "training": TrainingSpec(epochs=2), "method": Config(rank=3)}
    recipe = load(values, ["training.seed=4"])
    assert (recipe.training.epochs, recipe.training.seed) == (2, 4)
    assert recipe.resolved()["method"]["rank"] == 3
    assert only({**GOOD, "objective": Config()}).startswith(
        "recipe: objective: unknown objective 'lora'"
    )


ROWS = [{"prompt": str(i), "response": "${NOT_A_VARIABLE}"} for i in range(120)]


def test_rows_in_memory_are_left_alone_and_named(file: Path) -> None:
    recipe = load({"model": "m", "data": {"train": ROWS, "validation": ROWS[:3]}})
    assert recipe.data.train is ROWS
    assert recipe.resolved()["data"]["train"] == "<120 rows in memory>"
    assert "<120 rows in memory>" in repr(recipe)
    assert len(repr(recipe)) < 3000
    file.write_text(recipe.to_yaml())
    faults = refused(file)
    assert [f.message for f in faults] == [
        "data.train: the rows were in memory, no file holds them",
        "data.validation: the rows were in memory, no file holds them",
    ]
    assert faults[0].place.startswith("recipe.yaml:")
    assert "luthier.train" in faults[0].cure
    assert load(file, ["data.train=a", "data.validation=b"]).data.train == "a"


def frames() -> Sequence[Any]:
    import datasets
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    return [frame, datasets.Dataset.from_list(ROWS), tuple(ROWS)]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_frames_pass_through_untouched(number: int) -> None:
    rows, others = frames()[number], frames()[number]
    recipe = load({"model": "m", "data": {"train": rows}})
    assert recipe.data.train is rows
    assert load(recipe, ["training.epochs=1"]).data.train is rows
    assert recipe.resolved()["data"]["train"] == "<120 rows in memory>"
    assert "<120 rows in memory>" in repr(recipe)
    assert recipe == load({"model": "m", "data": {"train": rows}})
    assert recipe != load({"model": "m", "data": {"train": others}})
    in_stage = load({"model": "m", "stages": [{"data": {"train": rows, "validation": others}}]})
    assert recipes.stages(in_stage)[0]["data"]["train"] is rows
    assert in_stage == load(in_stage, ["training.epochs=3"])
    assert "<120 rows in memory>" in in_stage.to_yaml()


def test_rows_without_a_number() -> None:
    class Stream:
        def __iter__(self) -> Any:
            return iter(ROWS)

    recipe = load({"model": "m", "data": {"train": Stream()}})
    assert recipe.resolved()["data"]["train"] == "<rows in memory>"
    assert "in memory" in only({"model": "m", "data": {"train": "<rows in memory>"}})


def test_a_mapping_is_not_changed() -> None:
    values = {"model": "m", "data": {"train": Path("a"), "validation": (Path("b"), "c")}}
    recipe = load(values, ["data.limit=3"])
    assert recipe.data.train == "a"
    assert recipe.data.validation == ["b", "c"]
    assert values == {"model": "m", "data": {"train": Path("a"), "validation": (Path("b"), "c")}}
