"""The JSON Schema that editors use: complete, documented, and of one mind with the recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import builders
import pytest

from luthier.core import kinds
from luthier.core.errors import RecipeError
from luthier.core.recipe import Recipe, load, schema
from luthier.core.recipe_yaml import parse

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
SCHEMA = schema()

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def valid(value: Any, rule: Any) -> bool:
    """JSON Schema validation, of the words that this schema uses; an unknown word is an error."""
    if isinstance(rule, bool):
        return rule
    return all(_holds(word, wanted, value, rule) for word, wanted in rule.items())


def _holds(word: str, wanted: Any, value: Any, rule: dict[str, Any]) -> bool:
    if word in ("description", "title", "default", "examples", "$schema", "$defs"):
        return True
    if word == "$ref":
        return valid(value, SCHEMA["$defs"][wanted.removeprefix("#/$defs/")])
    if word == "anyOf":
        return any(valid(value, each) for each in wanted)
    if word == "type":
        is_truth = isinstance(value, bool)
        return bool(isinstance(value, _TYPES[wanted]) and is_truth == (wanted == "boolean"))
    if word in ("const", "enum"):
        return value in (wanted if word == "enum" else [wanted])
    kind, check = _CHECKS[word]
    return not isinstance(value, kind) or isinstance(value, bool) or check(value, wanted, rule)


def _extra(value: dict[str, Any], wanted: Any, rule: dict[str, Any]) -> bool:
    known = rule.get("properties", {})
    return all(valid(each, wanted) for name, each in value.items() if name not in known)


#: Word -> the type it speaks of, and whether a value of that type keeps it.
_CHECKS: dict[str, tuple[Any, Callable[[Any, Any, dict[str, Any]], bool]]] = {
    "minimum": ((int, float), lambda value, bound, _: value >= bound),
    "maximum": ((int, float), lambda value, bound, _: value <= bound),
    "exclusiveMinimum": ((int, float), lambda value, bound, _: value > bound),
    "exclusiveMaximum": ((int, float), lambda value, bound, _: value < bound),
    "pattern": (str, lambda value, pattern, _: re.search(pattern, value) is not None),
    "minLength": (str, lambda value, bound, _: len(value) >= bound),
    "minItems": (list, lambda value, bound, _: len(value) >= bound),
    "maxItems": (list, lambda value, bound, _: len(value) <= bound),
    "minProperties": (dict, lambda value, bound, _: len(value) >= bound),
    "items": (list, lambda value, rule, _: all(valid(each, rule) for each in value)),
    "prefixItems": (list, lambda value, rules, _: all(map(valid, value, rules))),
    "required": (dict, lambda value, names, _: all(name in value for name in names)),
    "additionalProperties": (dict, _extra),
    "properties": (
        dict,
        lambda value, rules, _: all(valid(value[n], r) for n, r in rules.items() if n in value),
    ),
}


def fields(rule: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property anywhere in the schema."""
    if isinstance(rule, dict):
        for name, field in rule.get("properties", {}).items():
            yield f"{path}/{name}", field
        for name, inner in rule.items():
            yield from fields(inner, f"{path}/{name}")
    elif isinstance(rule, list):
        for number, inner in enumerate(rule):
            yield from fields(inner, f"{path}/{number}")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_ready_recipe_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_DATA", "/data")
    values, _ = parse(path)
    assert valid(values, SCHEMA)
    assert valid(load(path).resolved(), SCHEMA), "and as it is written to a run's folder"


def test_there_are_ready_recipes() -> None:
    assert RECIPES


def laid(**parts: Any) -> dict[str, Any]:
    return {"model": "builtin:nano", "data": {"train": "a.jsonl"}, **parts}


RIGHT = [
    laid(),
    laid(model={"name": "x", "offline": True}),
    laid(model={"architecture": "llama", "tokenizer": {"vocab_size": 300}}),
    laid(objective="sft", method="full"),
    laid(objective={"kind": "sft", "train_on": "all"}, method={"kind": "lora", "rank": 3}),
    laid(training={"learning_rate": 1e-4, "token_budget": "auto", "betas": [0.9, 0.95]}),
    laid(training={"early_stopping": {"patience": 2}, "trackers": ["wandb"], "clip_norm": None}),
    laid(training={"trackers": "wandb"}),
    laid(training=None, evaluation=None, objective=None),
    laid(evaluation={"metrics": ["rouge", {"kind": "bleu"}]}),
    laid(evaluation={"metrics": "rouge"}),
    laid(data={"train": ["a", "b"], "validation": ["c"]}),
    laid(data={"train": [{"text": "a"}], "validation": 0}),
    laid(data={"train": None, "mixture": [{"source": "a", "weight": 2}], "temperature": 3}),
    laid(data={"train": None, "mixture": [{"source": ["a"], "limit": 2, "format": "auto"}]}),
    laid(version=1, output="runs/x"),
    {"model": "m", "stages": [{"data": {"train": "x"}, "objective": {"train_on": "all"}}]},
]

OWN = [
    laid(objective="my.objective", method={"kind": "my.method", "anything": [1]}),
    laid(evaluation={"metrics": ["my.metric", {"kind": "my.other", "anything": 1}]}),
]

WRONG = [
    {},
    {"data": {"train": "x"}},
    laid(modle="x"),
    laid(model=3),
    laid(model={"nam": "x"}),
    laid(version=2),
    laid(objective="stf"),
    laid(objective={"train_on": "all"}),
    laid(objective={"kind": "sft", "train_onn": "all"}),
    laid(objective={"kind": "sft", "train_on": "everything"}),
    laid(method={"kind": "lora", "rank": 0}),
    laid(method={"kind": "lora", "rank": True}),
    laid(training={"learning_rat": 1}),
    laid(training={"learning_rate": "fast"}),
    laid(training={"learning_rate": 0}),
    laid(training={"epochs": True}),
    laid(training={"epochs": "3 times"}),
    laid(training={"betas": [0.9]}),
    laid(training={"early_stopping": 3}),
    laid(training={"schedule": "cosin"}),
    laid(evaluation={"metrics": ["perplexty"]}),
    laid(evaluation={"metrics": 5}),
    laid(data={"train": 3}),
    laid(data={"train": []}),
    laid(data={"train": "x", "validation": 1.5}),
    laid(data={"train": "x", "validation": True}),
    laid(data={"train": "x", "validation": {"a": 1}}),
    laid(stages=[{"output": "x"}]),
    laid(stages=[{"training": {"epochs": -1}}]),
    laid(stages=[{"objective": {"train_onn": "all"}}]),
    laid(stages={"training": {}}),
]


@pytest.mark.parametrize("values", RIGHT, ids=str)
def test_what_is_right_is_right_to_both(values: dict[str, Any]) -> None:
    assert valid(values, SCHEMA)
    load(values)


@pytest.mark.parametrize("values", OWN, ids=str)
def test_modules_of_ones_own_may_have_any_setting(values: dict[str, Any]) -> None:
    assert valid(values, SCHEMA)


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_what_is_wrong_is_wrong_to_both(values: dict[str, Any]) -> None:
    assert not valid(values, SCHEMA)
    with pytest.raises(RecipeError):
        load(values)


def test_every_field_is_described() -> None:
    bare = [path for path, field in fields(SCHEMA) if not str(field.get("description", "")).strip()]
    assert not bare
    assert not [path for path, field in fields(SCHEMA) if "\n" in field["description"]]


def test_every_part_and_kind_is_there() -> None:
    assert set(SCHEMA["properties"]) == set(Recipe.model_fields)
    for folder in ("objectives", "methods", "metrics"):
        for kind in kinds.names(folder):
            settings = SCHEMA["$defs"][f"{folder}.{kind}"]
            config = kinds.config(folder, builders.settings(folder, kind))
            assert set(settings["properties"]) == set(config.model_dump())
            assert settings["additionalProperties"] is False


def test_every_reference_leads_somewhere() -> None:
    text = str(SCHEMA)
    for name in re.findall(r"'\$ref': '#/\$defs/([^']+)'", text):
        assert name in SCHEMA["$defs"]
    for name in SCHEMA["$defs"]:
        assert f"'#/$defs/{name}'" in text, f"{name} is never used"
