"""A function of your own, by import path."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from luthier.core.errors import RecipeError
from luthier.core.records import Prompt
from luthier.core.rewards import RewardConfig


class Config(RewardConfig):
    """Settings of the function."""

    kind: str = "function"
    function: str = Field(pattern=r"^[\w.]+:\w+$", examples=["luthier.rewards.function:words"])
    """``package.module:name``. It is called with the prompt's last turn, the answer and what came
    with the row (``prompt: str, answer: str, check: dict``) and gives a number."""
    slow: bool = False
    """Whether it waits for something (a network, a sandbox): it is then called from threads while
    further answers are sampled."""


class Reward:
    """See the module; what lies in the current folder is found last.

    Raises:
        RecipeError: there is no such function.
    """

    slow: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self.slow = config.slow  # type: ignore[misc]
        self._function = _found(config.function)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """Whatever the function gives; what it raises ends the run."""
        return [
            float(self._function(prompt.turns[-1].content, answer, dict(prompt.check)))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def words(prompt: str, answer: str, check: Mapping[str, Any]) -> float:  # noqa: ARG001
    """An example of such a function: how many words an answer has.

    >>> words("Who?", "The tall man.", {})
    3.0
    """
    return float(len(answer.split()))


def _found(path: str) -> Callable[[str, str, dict[str, Any]], float]:
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a user's module raises while it is imported
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise RecipeError(
            f"cannot import the reward function '{path}' ({reason})",
            cure="is the module's folder on PYTHONPATH?",
            code="import",
        ) from error
    if not callable(found):
        raise RecipeError(f"'{path}' is no function", code="import")
    return found  # type: ignore[no-any-return]
