"""Reward: what answers to held-out prompts earn, by the run's own rewards."""

from __future__ import annotations

from typing import ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, ratio


class Config(KindConfig):
    """The reward has no settings: the objective's rewards are meant."""

    kind: str = "reward"


class Metric:
    """Mean reward of an answer; NaN without answers that were rewarded.

    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> metric.update(Scored(Origin("test", 1), answer="7", reward=1.0))
    >>> metric.rows()["reward"].tolist()
    [[1.0, 1.0]]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rewards"})
    names: ClassVar[tuple[str, ...]] = ("reward",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({"reward": 2})

    def update(self, scored: Scored) -> None:
        """Adds one example; without a reward it counts for nothing."""
        if scored.reward is None:
            self._rows.add("reward")
        else:
            self._rows.add("reward", scored.reward, 1)

    def rows(self) -> dict[str, Array]:
        """``[reward, 1]`` of each example."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 2]`` to means ``[...]``."""
        assert name in self.names, name
        return ratio(totals)
