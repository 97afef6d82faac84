"""Language models that data asks for text: which one a recipe names, what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from luthier.core.records import Origin, Turn
from luthier.core.settings import RefusalError, Settings


class GeneratorSpec(Settings):
    """A model on this machine, or one behind an address that speaks OpenAI's chat completions."""

    model: str = Field(min_length=1)
    """A builtin, a folder, a run or a hub id; behind an address, the name it goes by there."""
    url: str | None = None
    """Where it is served, as ``http://127.0.0.1:8000/v1``; rows leave this process only for there.
    """
    key_env: str | None = Field(default=None, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the address's key."""
    temperature: float = Field(default=0.8, ge=0)
    """0 takes the likeliest words."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Smallest set of tokens with this probability to draw from."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer; one that is cut there is not used."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds to wait for the address."""
    retries: int = Field(default=5, ge=0, le=20)
    """How often it is asked again where it answers that it is busy or broken (429, 5xx)."""
    parallel: int = Field(default=4, ge=1, le=64)
    """Questions on their way at once."""
    body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of each request; null leaves one out: ``{max_tokens: null}``."""

    @field_validator("url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address, as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise RefusalError(
                "an address holds no password, query or fragment",
                "put the key into a variable and name it: key_env: OPENAI_API_KEY",
            )
        return value.rstrip("/")

    @model_validator(mode="after")
    def _used(self) -> GeneratorSpec:
        if self.url is None:
            for name in ("key_env", "timeout", "retries", "parallel", "body"):
                field = type(self).model_fields[name]
                if getattr(self, name) != field.get_default(call_default_factory=True):
                    raise ValueError(f"'{name}' has no meaning without 'url'")
        return self


def _named(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


#: As a kind's settings have it: a plain string is a model on this machine.
Generator = Annotated[
    GeneratorSpec, BeforeValidator(_named, json_schema_input_type=str | GeneratorSpec)
]


@dataclass(frozen=True, slots=True)
class Question:
    """What a generator is asked.

    Attributes:
        turns: the conversation so far.
        seed: of the draws; another one asks for another answer.
        rows: the training rows whose text stands in it.
    """

    turns: tuple[Turn, ...]
    seed: int
    rows: tuple[Origin, ...]


class Writer(Protocol):
    """A language model that answers in text."""

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        """An answer to each question; ``None`` where it is empty or was cut at its bound.

        Raises:
            UserError: no such model, or an address that cannot be reached or refuses.
        """
        ...
