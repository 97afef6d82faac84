"""Rewards as a recipe names them: several kinds, each with its weight in the sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from luthier.core import kinds
from luthier.core.contracts import KindConfig, Reward
from luthier.core.errors import RecipeError

FOLDER = "rewards"


class RewardConfig(KindConfig):
    """What every reward is told."""

    weight: float = 1.0
    """Its factor in the sum of all rewards; a negative one makes it a penalty."""


def _config(value: Any) -> KindConfig:
    return kinds.config(FOLDER, value)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


#: As an objective's settings have them: a name, a mapping, or a list of either.
Rewards = Annotated[
    tuple[Annotated[SerializeAsAny[KindConfig], BeforeValidator(_config)], ...],
    BeforeValidator(_listed),
    Field(min_length=1),
]


def named(configs: Sequence[KindConfig]) -> dict[str, KindConfig]:
    """Each under a name of its own: its kind, numbered where a kind comes again."""
    found: dict[str, KindConfig] = {}
    for config in configs:
        kind = config.kind.rpartition(".")[2]
        name, number = kind, 1
        while name in found:
            number += 1
            name = f"{kind}_{number}"
        found[name] = config
    return found


def weights(configs: Sequence[KindConfig]) -> dict[str, float]:
    """The weight of each, by name; a user's own kind without one weighs 1."""
    return {name: float(getattr(config, "weight", 1.0)) for name, config in named(configs).items()}


def build(configs: Sequence[KindConfig]) -> dict[str, Reward]:
    """The rewards, by name.

    Raises:
        RecipeError: a user's own module that scores nothing.
    """
    made: dict[str, Reward] = {}
    for name, config in named(configs).items():
        reward = kinds.build(FOLDER, config)
        if not callable(getattr(reward, "score", None)):
            raise RecipeError(
                f"reward '{config.kind}' has no method 'score'",
                cure="score(prompts, answers) -> a number an answer",
                code="import",
            )
        made[name] = reward
    return made


def total(parts: Mapping[str, Any], factors: Mapping[str, float]) -> Any:
    """The weighted sum of what the rewards gave."""
    return sum(factors[name] * values for name, values in parts.items())
