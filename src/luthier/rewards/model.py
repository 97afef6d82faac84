"""What a reward model says of an answer: one that was trained on preferences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import Field

from luthier.core.contracts_scores import RewardModels
from luthier.core.records import Prompt
from luthier.core.rewards import RewardConfig


class Config(RewardConfig):
    """Settings of the reward model."""

    kind: str = "model"
    model: str = Field(min_length=1)
    """A reward model: a finished run, or a folder with a model that gives one number."""
    bound: float | None = Field(default=None, gt=0)
    """Scores beyond plus or minus this are cut, so that no single one rules a step; none if
    unset."""


class Reward:
    """See the module."""

    slow: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self._scores: Callable[[Sequence[tuple[Prompt, str]]], list[float]] | None = None

    def borrow(self, models: RewardModels) -> None:
        """The reward model."""
        self._scores = models.scores(self.config.model)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """One number an answer, as the model was trained to give."""
        assert self._scores is not None, "nothing was borrowed"
        found = self._scores(list(zip(prompts, answers, strict=True)))
        bound = self.config.bound
        return found if bound is None else [max(-bound, min(bound, score)) for score in found]
