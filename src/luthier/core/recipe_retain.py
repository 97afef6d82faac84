"""What a run must not forget, as a recipe says it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from luthier.core import kinds
from luthier.core.contracts import KindConfig
from luthier.core.settings import Settings

_Objective = Annotated[
    SerializeAsAny[KindConfig], BeforeValidator(lambda value: kinds.config("objectives", value))
]


class RetainSpec(Settings):
    """Rows of what the model could do before, measured before and after; in short, a file.

    Catastrophic forgetting: McCloskey & Cohen 1989. Replay of a share of old rows: Robins 1995;
    of one per cent and more in continued pretraining: Ibrahim et al. 2024 (arXiv 2403.08763).
    """

    rows: str | tuple[str, ...] = Field(min_length=1)
    """A file, a list of files, or a hub id."""
    objective: _Objective | None = None
    """What they are measured by; the run's own if unset."""
    format: str | dict[str, JsonValue] = "auto"
    """How they are understood, as ``data.format``."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Renames, as ``data.columns``."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many rows of each file."""
    replay: float = Field(default=0.0, ge=0, lt=1)
    """The share of an epoch's examples that are drawn from them, beside the run's own."""
    validation: Annotated[float, Field(gt=0, lt=1)] | str | tuple[str, ...] = 0.1
    """Where some are replayed, what is measured: a share of them, which is then not replayed, or a
    source of its own. Where none are, all of them are measured."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of a pull towards the model at the start: KL(start || now) of every learned token."""

    @field_validator("rows", "validation", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("format")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value != "auto":
            kinds.config("data/formats", value)
        return value

    @model_validator(mode="after")
    def _with_effect(self) -> RetainSpec:
        if not self.replay and not isinstance(self.validation, float):
            raise ValueError("'validation' has no effect without 'replay': name it as 'rows'")
        return self
