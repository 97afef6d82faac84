"""Whether an answer is written as it should be: a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from luthier.core.records import Prompt
from luthier.core.rewards import RewardConfig


class Config(RewardConfig):
    """Settings of the pattern."""

    kind: str = "pattern"
    pattern: str = Field(min_length=1, examples=["."])
    """A regular expression of Python's; ``.`` matches line ends too."""
    whole: bool = False
    """Whether it must match the whole answer; else a place in it is enough."""
    found: float = 1.0
    """What an answer earns that it matches."""
    missing: float = 0.0
    """What any other earns."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value


class Reward:
    """See the module."""

    slow: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        compiled = re.compile(config.pattern, re.DOTALL)
        self._match = compiled.fullmatch if config.whole else compiled.search

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """``found`` or ``missing``."""
        c = self.config
        return [c.found if self._match(answer) else c.missing for answer in answers]
