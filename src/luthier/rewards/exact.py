"""Whether an answer is the right one: as a number where it is a number, else as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from luthier.core.records import Prompt
from luthier.core.rewards import RewardConfig
from luthier.rewards._answers import behind, numbers, plain, right_answer


class Config(RewardConfig):
    """Settings of the comparison with the right answer."""

    kind: str = "exact"
    compare: Literal["auto", "number", "text"] = "auto"
    """As the last ``number`` of each, exactly; as ``text``, case and spaces aside; ``auto`` takes
    numbers where the right answer is one."""
    behind: str | None = None
    """What stands before the final answer, as ``####``; an answer without it is wrong. Of a text
    all of it is compared if unset."""
    right: float = 1.0
    """What a right answer earns."""
    wrong: float = 0.0
    """What any other earns."""


class Reward:
    """See the module."""

    slow: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """``right`` or ``wrong``.

        Raises:
            DataError: a row without a right answer, or one that is no number where it must be.
        """
        pairs = zip(prompts, answers, strict=True)
        return [self.config.right if self._is_right(*pair) else self.config.wrong for pair in pairs]

    def _is_right(self, prompt: Prompt, answer: str) -> bool:
        wanted = right_answer(prompt, self.config.kind)
        said = behind(answer, self.config.behind)
        if said is None:
            return False
        by = self.config.compare
        number = numbers(wanted)
        if by == "number" or (by == "auto" and len(number) == 1 and _is_number(wanted)):
            found = numbers(said)
            return bool(found and number) and found[-1] == number[-1]
        return plain(said) == plain(wanted)


def _is_number(text: str) -> bool:
    """Whether a right answer is nothing but a number, signs of money and per cent aside."""
    return not text.strip(" $€£%.+-,/0123456789\n")
