"""How long an answer is: a penalty for words too many or too few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from luthier.core.records import Prompt
from luthier.core.rewards import RewardConfig


class Config(RewardConfig):
    """Settings of the length; inside its bounds an answer earns 0."""

    kind: str = "length"
    unit: Literal["words", "characters"] = "words"
    """What is counted."""
    least: int = Field(default=0, ge=0)
    """Shorter answers lose."""
    most: int | None = Field(default=200, ge=1)
    """Longer answers lose; null for no bound."""
    slope: int = Field(default=20, ge=1)
    """So far outside, the whole penalty of 1 is reached; in between a part of it (the soft
    punishment of DAPO: Yu et al. 2025, arXiv 2503.14476)."""

    @model_validator(mode="after")
    def _bounds(self) -> Config:
        if self.most is None and not self.least:
            raise ValueError("must have a bound: 'least', 'most' or both")
        if self.most is not None and self.most < self.least:
            raise ValueError("'most' must not be below 'least'")
        return self


class Reward:
    """See the module."""

    slow: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """Between -1 and 0."""
        return [-min(1.0, self._outside(answer) / self.config.slope) for answer in answers]

    def _outside(self, answer: str) -> int:
        size = len(answer.split()) if self.config.unit == "words" else len(answer)
        over = 0 if self.config.most is None else size - self.config.most
        return max(0, self.config.least - size, over)
