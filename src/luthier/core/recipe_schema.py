"""JSON Schema of a recipe, for editors: the recipe's own plus every kind's settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from luthier.core import kinds
from luthier.core.recipe_values import DEFAULT_KINDS

#: What a stage may override.
_STAGED = ("model", "objective", "method", "data", "training", "evaluation", "retain")


def recipe_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema, with kinds as a choice of names or of mappings with their own settings."""
    schema = model.model_json_schema()
    parts, properties = schema["$defs"], schema["properties"]
    for part in DEFAULT_KINDS:
        properties[part] = {
            **_described(properties[part]),
            "anyOf": _choices(f"{part}s", parts, needs_kind=True),
            "default": DEFAULT_KINDS[part],
        }
    spec = parts["EvaluationSpec"]["properties"]
    metrics = _choices("metrics", parts, needs_kind=True)
    spec["metrics"] = {
        **_described(spec["metrics"]),
        "anyOf": [
            {"type": "array", "items": {"anyOf": metrics}},
            {"type": "string"},
            {"type": "null"},
        ],
        "default": None,
    }
    data = parts["DataSpec"]["properties"]
    for name, folder in (("clean", "data/cleaners"), ("augment", "data/augmenters")):
        steps = _choices(folder, parts, needs_kind=True)
        data[name] = {
            **_described(data[name]),
            "anyOf": [{"type": "array", "items": {"anyOf": steps}}, {"type": "string"}],
            "default": [],
        }
    retain = parts["RetainSpec"]["properties"]
    objectives = [*_choices("objectives", parts, needs_kind=True), {"type": "null"}]
    retain["objective"] = {**_described(retain["objective"]), "anyOf": objectives, "default": None}
    properties["retain"] = {
        **properties["retain"],
        "anyOf": [*retain["rows"]["anyOf"], *properties["retain"]["anyOf"]],
    }
    properties["model"] = {
        **_described(properties["model"]),
        "anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/ModelSpec"}],
    }
    trackers = parts["TrainingSpec"]["properties"]["trackers"]
    trackers["anyOf"].append(
        next(a for a in trackers["anyOf"] if a.get("type") == "array")["items"]
    )
    for part in ("data", "training", "evaluation", *DEFAULT_KINDS):
        _nullable(properties[part])
    properties["stages"]["items"] = _stage(properties, parts)
    parts.pop("KindConfig", None)  # every kind's own settings stand in its place
    _tidy(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Luthier recipe",
    }


def _choices(folder: str, parts: dict[str, Any], *, needs_kind: bool) -> list[dict[str, Any]]:
    """A name of the folder, a module of the user's own, or a mapping of one kind's settings."""
    known, short = kinds.names(folder), folder.rpartition("/")[2]
    own = {
        "type": "string",
        "pattern": r"\.",
        "description": "A module of your own, by import path.",
    }
    choices: list[dict[str, Any]] = [{"type": "string", "enum": list(known)}, own]
    for kind in known:
        inner = kinds.module(folder, kind).Config.model_json_schema()
        parts.update(inner.pop("$defs", {}))
        inner["properties"]["kind"] = {"const": kind, "description": kinds.summary(folder, kind)}
        inner["required"] = [*inner.get("required", []), "kind"] if needs_kind else []
        inner["title"] = f"{short} {kind}"
        if folder == "objectives" and "rewards" in inner["properties"]:
            earned = _choices("rewards", parts, needs_kind=True)
            inner["properties"]["rewards"] |= {
                "anyOf": [{"type": "array", "minItems": 1, "items": {"anyOf": earned}}, *earned]
            }
            for word in ("type", "items", "minItems", "examples"):
                inner["properties"]["rewards"].pop(word, None)
        name = f"{short}.{kind}" if needs_kind else f"stage {short}.{kind}"
        parts[name] = inner
        choices.append({"$ref": f"#/$defs/{name}"})
    mapping = {
        "type": "object",
        "properties": {"kind": own},
        "required": ["kind"],
        "description": "Settings of a module of your own.",
    }
    return [*choices, mapping]


def _stage(properties: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """A part of a recipe in which nothing is required, a kind's name included."""
    staged = {part: properties[part] for part in _STAGED}
    for part in DEFAULT_KINDS:
        choices = _choices(f"{part}s", parts, needs_kind=False)
        staged[part] = {**_described(properties[part]), "anyOf": choices}
    return {
        "type": "object",
        "title": "Stage",
        "description": "What this stage does differently from the recipe.",
        "properties": staged,
        "additionalProperties": False,
    }


def _described(old: dict[str, Any]) -> dict[str, Any]:
    return {"description": old.get("description", "")}


def _nullable(part: dict[str, Any]) -> None:
    """An empty part (``training:`` and nothing below) is one left out."""
    if "$ref" in part:
        part["anyOf"] = [{"$ref": part.pop("$ref")}]
    part["anyOf"] = [*part["anyOf"], {"type": "null"}]


def _tidy(node: Any) -> None:
    """Descriptions on one line, no titles that only repeat a field's name."""
    inner: Iterable[Any] = node.values() if isinstance(node, dict) else node
    if isinstance(node, dict):
        if isinstance(node.get("description"), str):
            node["description"] = " ".join(node["description"].replace("``", "'").split())
        if isinstance(node.get("properties"), dict):
            for field in node["properties"].values():
                field.pop("title", None)
    for each in inner:
        if isinstance(each, dict | list):
            _tidy(each)
