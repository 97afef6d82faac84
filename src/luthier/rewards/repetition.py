"""How often an answer says the same again: a penalty for repeated runs of words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from luthier.core.records import Prompt
from luthier.core.rewards import RewardConfig


class Config(RewardConfig):
    """Settings of the repetition."""

    kind: str = "repetition"
    words: int = Field(default=3, ge=1)
    """Length of the runs that are counted."""


class Reward:
    """``distinct / all - 1`` of the runs of ``words`` words: 0 where none comes twice.

    Case is set aside. An answer shorter than a run repeats nothing.
    """

    slow: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """Above -1, at most 0."""
        return [self._score(answer) for answer in answers]

    def _score(self, answer: str) -> float:
        said, size = answer.casefold().split(), self.config.words
        runs = [tuple(said[at : at + size]) for at in range(len(said) - size + 1)]
        return len(set(runs)) / len(runs) - 1 if runs else 0.0
