"""Stages: each is a recipe laid on the whole one, with faults and places of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from refusals import only, said

from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.recipe import load


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test writes its recipe; named as a user names it, without a folder."""
    monkeypatch.chdir(tmp_path)
    return Path("recipe.yaml")


def staged(*stages: Any, **base: Any) -> dict[str, Any]:
    return {"model": "builtin:nano", "stages": list(stages), **base}


def test_a_stage_overrides_the_recipe() -> None:
    recipe = load(
        staged(
            {"objective": "language_modeling", "data": {"train": "a.txt"}},
            {"data": {"train": "b"}, "method": {"rank": 4}, "training": {"epochs": 1}},
            {"data": {"train": "c", "columns": {}}, "objective": {"train_on": "last_turn"}},
            objective={"kind": "sft", "train_on": "all"},
            data={"validation": 0.2, "columns": {"prompt": "q"}},
            training={"epochs": 5, "seed": 3},
            output="runs/x",
        )
    )
    one, two, three = recipes.stages(recipe)
    assert one["objective"] == {"kind": "language_modeling", "label_smoothing": 0.0}
    assert one["data"]["train"] == "a.txt"
    assert one["data"]["validation"] == 0.2
    assert one["output"] is None
    assert one["stages"] == []
    assert two["objective"]["train_on"] == "all"
    assert two["method"]["kind"] == "lora"
    assert two["method"]["rank"] == 4
    assert (two["training"]["epochs"], two["training"]["seed"]) == (1, 3)
    assert three["objective"]["train_on"] == "last_turn"
    assert three["data"]["columns"] == {"prompt": "q"}, "an empty mapping adds nothing"
    for stage in (one, two, three):
        assert recipes.validate({**stage, "output": "x", "model": "y"}).output == "x"


def test_a_first_stage_may_name_another_model() -> None:
    base = {"model": {"architecture": "llama", "tokenizer": {"vocab_size": 400}}}
    recipe = load(staged({"data": {"train": "a"}, "model": "builtin:nano"}, **base))
    assert recipes.stages(recipe)[0]["model"]["name"] == "builtin:nano"
    recipe = load(staged({"data": {"train": "a"}, "model": {"tokenizer": "x"}}, **base))
    assert recipes.stages(recipe)[0]["model"]["architecture"] == "llama"


def test_stages_have_faults_and_places_of_their_own(file: Path) -> None:
    file.write_text(
        "model: builtin:nano\n"
        "training: {epochs: fast}\n"
        "stages:\n"
        "  - training: {learning_rat: 1}\n"
        "    data: {train: a}\n"
        "  - model: x\n"
        "    output: y\n"
        "    objective: {kind: foo}\n"
        "  - 3\n"
        "  - data: {train: b, validation: 0}\n"
        "    training: {early_stopping: {patience: 1}}\n"
        "  - data: {train: c}\n"
        "    training: {epochs: slow}\n"
        "  - training: {epochs: 1}\n"
    )
    assert said(file) == [
        "recipe.yaml:2:12: training.epochs: must be a number, this is 'fast'",
        "recipe.yaml:4:16: stages.0.training.learning_rat: unknown key, did you mean "
        "'learning_rate'?",
        "recipe.yaml:6:5: stages.1.model: a later stage starts from the model of the one before it",
        "recipe.yaml:7:5: stages.1.output: a stage's folder lies in the recipe's own output",
        "recipe.yaml:8:5: stages.1.objective: unknown objective 'foo', one of: "
        + ", ".join(kinds.names("objectives")),
        "recipe.yaml:9:5: stages.2: must be a mapping, this is 3",
        "recipe.yaml:13:16: stages.4.training.epochs: must be a number, this is 'slow'",
        "recipe.yaml:14:5: stages.5.data.train: missing, there is nothing to learn from",
    ]
    file.write_text(file.read_text().replace("fast", "2").replace("slow", "3"))
    pairing = [line for line in said(file) if "stages.3" in line]
    assert pairing == [
        "recipe.yaml:11:16: stages.3.training.early_stopping: needs held-out rows to watch, and "
        "data.validation gives none"
    ]


def test_a_staged_recipe_needs_no_rows_of_its_own_and_each_stage_needs_some(file: Path) -> None:
    file.write_text("model: builtin:nano\nstages:\n  - objective: sft\n  - data: {train: a}\n")
    assert said(file) == [
        "recipe.yaml:3:5: stages.0.data.train: missing, there is nothing to learn from"
    ]


def test_overrides_reach_into_stages(file: Path) -> None:
    file.write_text(
        "model: m\ndata: {train: a}\nstages: [{training: {epochs: 2}}, {objective: sft}]\n"
    )
    words = ["stages.0.training.epochs=1e-3", "stages.1.objective.train_on=all"]
    one, two = recipes.stages(load(file, words))
    assert one["training"]["epochs"] == 1e-3
    assert two["objective"] == {"kind": "sft", "train_on": "all", "label_smoothing": 0.0}
    assert only(file, "stages.0.training.epochs=x").startswith("command line: stages.0.training")


def test_merge() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "method": {"kind": "lora", "rank": 3}, "x": {"y": 1}}
    over = {"a": {"c": [3]}, "method": {"kind": "lora", "alpha": 1}, "x": None, "new": {"z": 1}}
    assert recipes.merge(base, over) == {
        "a": {"b": 1, "c": [3]},
        "method": {"kind": "lora", "rank": 3, "alpha": 1},
        "x": None,
        "new": {"z": 1},
    }
    assert base["a"] == {"b": 1, "c": [1, 2]}, "the base is left as it was"
    assert recipes.merge({"model": {"architecture": "a"}}, {"model": {"name": "b"}}) == {
        "model": {"name": "b"}
    }
