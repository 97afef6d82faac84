"""Whether an answer is JSON that keeps a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jsonschema
from pydantic import Field, JsonValue, field_validator
from referencing import Registry

from luthier.core.errors import DataError
from luthier.core.records import Prompt
from luthier.core.rewards import RewardConfig


class Config(RewardConfig):
    """Settings of the schema."""

    kind: str = "schema"
    json_schema: dict[str, JsonValue] | None = Field(default=None, examples=[{"type": "object"}])
    """A JSON Schema; each row's own (its column ``schema``) if unset."""
    fences: bool = True
    """Whether the JSON may stand between ``` marks, with words around it."""
    valid: float = 1.0
    """What an answer earns that keeps it."""
    parsed: float = 0.0
    """What one earns that is JSON and breaks it."""
    other: float = 0.0
    """What any other earns."""

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            try:
                _validator(value)
            except jsonschema.SchemaError as error:
                raise ValueError(f"is no JSON Schema: {error.message}") from None
        return value


class Reward:
    """See the module; nothing is fetched that a schema refers to."""

    slow: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self._known = None if config.json_schema is None else _validator(config.json_schema)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """``valid``, ``parsed`` or ``other``.

        Raises:
            DataError: a row without a schema where the recipe has none.
        """
        return [self._score(*pair) for pair in zip(prompts, answers, strict=True)]

    def _score(self, prompt: Prompt, answer: str) -> float:
        validator = self._known or _own(prompt)
        try:
            value = json.loads(_unfenced(answer) if self.config.fences else answer)
        except (ValueError, RecursionError):
            return self.config.other
        return self.config.valid if validator.is_valid(value) else self.config.parsed


def _validator(schema: Mapping[str, Any]) -> Any:
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    kind.check_schema(schema)
    return kind(schema, registry=Registry())


def _own(prompt: Prompt) -> Any:
    """The schema of a row.

    Raises:
        DataError: it has none, or one that is none.
    """
    found = prompt.check.get("schema")
    try:
        schema = json.loads(found) if isinstance(found, str) else found
        if not isinstance(schema, Mapping):
            raise ValueError("it has none")
        return _validator(schema)
    except (ValueError, jsonschema.SchemaError) as error:
        raise DataError(
            f"reward 'schema' wants a JSON Schema in the row's column schema: {error}",
            str(prompt.origin),
            "give the reward one for all rows: json_schema: {type: object}",
            "reward",
        ) from None


def _unfenced(answer: str) -> str:
    """What stands between the first two marks, without the name of a language."""
    parts = answer.split("```", 2)
    if len(parts) < 3:
        return answer
    return parts[1].removeprefix("json")
