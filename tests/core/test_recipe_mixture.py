"""Several sources in a recipe: what goes together, what is kept, what a stage replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier.core.errors import RecipeError
from luthier.core.recipe import Recipe, load, stages

TWO = [{"source": "a.jsonl", "weight": 2}, {"source": ["b.jsonl", "c.jsonl"]}]


def made(data: dict[str, Any], **changes: Any) -> Recipe:
    return load({"model": "m", "data": data, **changes})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"mixture": TWO, "train": "x"}, "data.mixture: stands in place of data.train"),
        ({"mixture": []}, "data.mixture: must have at least 1 entries"),
        ({"mixture": ["a"]}, "data.mixture.0: must be a mapping"),
        ({"mixture": [{"source": "a", "wieght": 2}]}, "did you mean 'weight'?"),
        ({"mixture": [{"weight": 2}]}, "data.mixture.0.source: missing"),
        ({"mixture": [{"source": None}]}, "data.mixture.0.source: must name a file"),
        ({"mixture": [{"source": 3}]}, "data.mixture.0.source: must be a file"),
        ({"mixture": [{"source": "a", "weight": 0}]}, "weight: must be greater than 0"),
        (
            {"mixture": [{"source": "a", "weight": 2, "share": 0.5}]},
            "data.mixture.0: takes either 'weight' or 'share', not both",
        ),
        (
            {"mixture": [{"source": "a", "share": 0.5}, {"source": "b", "share": 0.4}]},
            "data.mixture: its shares sum to 0.9, where an epoch is 1",
        ),
        (
            {"mixture": [{"source": "a", "share": 1}, {"source": "b"}]},
            "data.mixture: its shares sum to 1, which leaves nothing for the sources without",
        ),
        (
            {"mixture": [{"source": "a", "format": "label"}]},
            "data.mixture.0.format: 'label' reads rows as Labelled",
        ),
        ({"mixture": [{"source": "a", "format": "labl"}]}, "data.mixture.0.format: unknown"),
        ({"train": "a", "temperature": 2}, "data.temperature: has no effect without"),
        ({"train": "a", "epoch_length": 9}, "data.epoch_length: has no effect without"),
        (
            {"mixture": [{"source": "a", "share": 1}], "temperature": 2},
            "data.temperature: has no effect: every source has a share of its own",
        ),
        ({"train": "a", "balance": "oversample"}, "data.balance: 'sft' has no classes"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        made(data)
    assert said in str(caught.value)


def test_classes_are_balanced_or_sources_weighed() -> None:
    balanced = {"mixture": TWO, "balance": "oversample"}
    with pytest.raises(RecipeError, match="drawn either by class or by source"):
        made(balanced, objective="classification")
    plain = [{"source": "a"}, {"source": "b", "limit": 9}]
    assert made({**balanced, "mixture": plain}, objective="classification").data.balance
    weighed = {"kind": "classification", "class_weights": "inverse"}
    with pytest.raises(RecipeError, match="weighs them up once more"):
        made({"train": "a", "balance": "undersample"}, objective=weighed)


def test_it_is_written_and_read_again(tmp_path: Path) -> None:
    recipe = made({"mixture": TWO, "temperature": 2, "epoch_length": "all_exhausted"})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load(tmp_path / "recipe.yaml") == recipe
    assert yaml.safe_load(recipe.to_yaml())["data"]["mixture"][1]["source"] == [
        "b.jsonl",
        "c.jsonl",
    ]


def test_rows_in_memory_stay_themselves() -> None:
    rows = [{"text": "${HOME} a"}]
    recipe = made({"mixture": [{"source": rows}, {"source": "b"}]}, objective="language_modeling")
    for each in (recipe, load(recipe), load(recipe, ["data.mixture.1.weight=3"])):
        assert each.data.mixture is not None
        assert each.data.mixture[0].source is rows
        assert each.data.readings()[0].memory == "memory 1"
    assert load(recipe) == recipe
    assert (
        made({"mixture": [{"source": [*rows]}, {"source": "b"}]}, objective="language_modeling")
        != recipe
    )
    assert "<1 rows in memory>" in recipe.to_yaml()
    with pytest.raises(RecipeError, match="the rows were in memory, no file holds them"):
        load(yaml.safe_load(recipe.to_yaml()))


def test_variables_stand_in_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE_UP", "/data")
    recipe = made({"mixture": [{"source": "${MADE_UP}/a"}, {"source": ["${MADE_UP}/b"]}]})
    assert [each.source for each in recipe.data.readings()] == ["/data/a", ["/data/b"]]


def test_a_source_falls_back_to_what_data_says() -> None:
    own = {"source": "b", "format": "messages", "columns": {}, "limit": 3}
    recipe = made(
        {"mixture": [{"source": "a"}, own], "format": "prompt_response",
         "columns": {"prompt": "q"}, "limit": 9},
    )  # fmt: skip
    first, second = recipe.data.readings()
    assert (first.format, first.columns, first.limit) == ("prompt_response", {"prompt": "q"}, 9)
    assert (second.format, second.columns, second.limit) == ("messages", {}, 3)


def test_a_stage_with_a_source_of_its_own_replaces_the_mixture() -> None:
    base = {"mixture": TWO, "temperature": 2, "limit": 5}
    staged = made(base, stages=[{}, {"data": {"train": "x"}}, {"data": {"limit": 7}}])
    first, second, third = (one["data"] for one in stages(staged))
    assert [entry["source"] for entry in first["mixture"]] == ["a.jsonl", ["b.jsonl", "c.jsonl"]]
    assert (second["train"], second["mixture"], second["temperature"]) == ("x", None, 1.0)
    assert second["limit"] == 5
    assert third["mixture"]
    assert third["temperature"] == 2
    turned = made({"train": "x"}, stages=[{"data": {"mixture": TWO}}])
    [only] = stages(turned)
    assert only["data"]["train"] is None
    assert len(only["data"]["mixture"]) == 2
