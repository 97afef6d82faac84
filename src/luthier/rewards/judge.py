"""What a language model thinks of an answer: a grade, asked for in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, model_validator

from luthier.core.contracts_scores import RewardModels
from luthier.core.errors import DataError
from luthier.core.generators import Generator, Question, Writer
from luthier.core.records import Prompt, Turn
from luthier.core.rewards import RewardConfig

_ASK = """You grade answers. {criterion}

Question:
{prompt}

Answer:
{answer}

Say only a whole number from {low} (worst) to {high} (best)."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Config(RewardConfig):
    """Settings of the judge."""

    kind: str = "judge"
    judge: Generator
    """Who grades: a model on this machine, or one behind an address:
    ``{url: …, model: …, key_env: OPENAI_API_KEY, temperature: 0}``."""
    criterion: str = Field(
        default="A good answer is correct, helpful and to the point.", min_length=1
    )
    """What a good answer is, in words."""
    low: int = 1
    """The worst grade, which becomes 0."""
    high: int = 10
    """The best grade, which becomes 1."""
    unreadable: float = 0.0
    """What an answer earns whose grade holds no number."""

    @model_validator(mode="after")
    def _ordered(self) -> Config:
        if self.high <= self.low:
            raise ValueError("'high' must be above 'low'")
        return self


class Reward:
    """See the module; what was graded once is not asked again."""

    slow: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.slow = config.judge.url is not None  # type: ignore[misc]
        self._writer: Writer | None = None

    def borrow(self, models: RewardModels) -> None:
        """The judge."""
        self._writer = models.writer(self.config.judge)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """Between 0 and 1."""
        assert self._writer is not None, "nothing was borrowed"
        questions = [self._question(*pair) for pair in zip(prompts, answers, strict=True)]
        return [self._grade(said) for said in self._writer.answers(questions)]

    def _question(self, prompt: Prompt, answer: str) -> Question:
        c = self.config
        if not prompt.turns:
            raise DataError("a prompt of nothing cannot be judged", str(prompt.origin))
        asked = _ASK.format(
            criterion=c.criterion,
            prompt="\n".join(turn.content for turn in prompt.turns),
            answer=answer,
            low=c.low,
            high=c.high,
        )
        return Question((Turn("user", asked),), 0, (prompt.origin,))

    def _grade(self, said: str | None) -> float:
        c = self.config
        match = _NUMBER.search(said or "")
        if match is None:
            return c.unreadable
        return (min(c.high, max(c.low, float(match.group()))) - c.low) / (c.high - c.low)
