"""The part of a recipe that says what is measured, and how answers to measure are generated."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from luthier.core.recipe_parts import MetricConfig
from luthier.core.settings import Settings


class EvaluationSpec(Settings):
    """What is measured before and after, on the same held-out rows."""

    metrics: tuple[MetricConfig, ...] | None = None
    """Metrics by name; the objective's own if unset."""
    samples: int = Field(default=20, ge=0)
    """Prompts answered by both models and shown side by side."""
    prompts: tuple[str, ...] = ()
    """Prompts (or texts to classify) of your own, answered by both models and shown first."""
    rows: int | None = Field(default=None, ge=1)
    """Measure on so many held-out rows; all of them if unset."""
    generate_rows: int = Field(default=200, ge=0)
    """Rows answered for the metrics that compare answers."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest generated answer."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the most likely token each time; above, answers are drawn, with the run's seed."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of drawn answers: the smallest set of tokens with this probability to draw from."""
    top_k: int = Field(default=0, ge=0)
    """Of drawn answers: the likeliest tokens to draw from; 0 for all."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1 makes what was said less likely to be said again."""
    num_beams: int = Field(default=1, ge=1)
    """Beams of the search for an answer; 1 for none."""
    length_penalty: float = 1.0
    """Of beam search: above 0 favours longer answers, below 0 shorter ones."""
    resamples: int = Field(default=10_000, ge=100)
    """Of the bootstrap behind intervals and p-values."""
    before: bool = True
    """Measure the model before tuning as well."""

    @model_validator(mode="after")
    def _counts(self) -> EvaluationSpec:
        if self.num_beams == 1 and self.length_penalty != 1.0:
            raise ValueError("'length_penalty' has no effect without beams: set num_beams")
        if self.num_beams > 1 and self.temperature:
            raise ValueError("'temperature' draws and 'num_beams' searches: set one of them")
        if not self.temperature and (self.top_p < 1 or self.top_k):
            raise ValueError("'top_p' and 'top_k' have no effect without a temperature: set it")
        return self

    @property
    def generation(self) -> dict[str, Any]:
        """How answers are generated, by a sampler's names."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "num_beams")
        return {name: getattr(self, name) for name in (*names, "length_penalty")}

    @field_validator("metrics", mode="before")
    @classmethod
    def _one_metric(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("metrics")
    @classmethod
    def _once(cls, value: Any) -> Any:
        named = [config.kind for config in value or ()]
        if doubled := [kind for kind in named if named.count(kind) > 1]:
            raise ValueError(f"names '{doubled[0]}' twice, and its figures have one name")
        return value
