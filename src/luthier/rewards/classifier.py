"""How sure a classifier is that an answer is of a class: a run folder's, or any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from luthier.core.contracts_scores import RewardModels
from luthier.core.records import Prompt
from luthier.core.rewards import RewardConfig


class Config(RewardConfig):
    """Settings of the classifier."""

    kind: str = "classifier"
    model: str = Field(min_length=1)
    """A classifier: a finished run, a folder, a hub id."""
    label: str = Field(min_length=1)
    """The class whose probability is earned."""
    read: Literal["answer", "both"] = "answer"
    """What it reads: the answer, or the prompt's last turn and the answer as one text."""


class Reward:
    """See the module."""

    slow: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self._probabilities: Callable[[Sequence[str]], list[float]] | None = None

    def borrow(self, models: RewardModels) -> None:
        """The classifier."""
        self._probabilities = models.probabilities(self.config.model, self.config.label)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """Between 0 and 1; an answer of nothing earns 0."""
        assert self._probabilities is not None, "nothing was borrowed"
        texts = [self._text(*pair) for pair in zip(prompts, answers, strict=True)]
        told = [n for n, answer in enumerate(answers) if answer.strip()]
        found = [0.0] * len(texts)
        given = self._probabilities([texts[n] for n in told]) if told else []
        for number, probability in zip(told, given, strict=True):
            found[number] = probability
        return found

    def _text(self, prompt: Prompt, answer: str) -> str:
        if self.config.read == "answer":
            return answer
        return prompt.turns[-1].content + answer
