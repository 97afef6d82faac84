"""Simple preference optimisation: the likelier answer a token, by a margin, is the preferred one.

``-log sigmoid(beta (log p(c) / |c| - log p(r) / |r|) - gamma)`` (Meng et al. 2024, arXiv
2405.14734). No reference model; the reward is what generation itself goes by. With ``sft`` the
chosen answer is learned as well.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from luthier.core.contracts import KindConfig
from luthier.core.records import Batch
from luthier.objectives._pairs import PairObjective
from luthier.ops.preferences import Sides


class Config(KindConfig):
    """Settings of simple preference optimisation."""

    kind: str = "simpo"
    beta: float = Field(default=2.0, gt=0)
    """Factor on the mean log-probability of an answer's tokens."""
    gamma: float = Field(default=1.0, ge=0)
    """By how much the chosen answer's reward is to be larger."""
    sft: float = Field(default=0.0, ge=0)
    """Coefficient of the chosen answers' own negative log-likelihood, a mean over their tokens."""


class Objective(PairObjective):
    """See the module."""

    config: Config

    @property
    def likelihood(self) -> float:
        """As the recipe has it."""
        return self.config.sft

    def rewards(self, sums: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """``beta`` times the mean log-probability of an answer's tokens."""
        return self.config.beta * sums / lengths

    def preferences(self, rewards: Sides) -> Tensor:
        """The mean over a prompt's pairs."""
        return rewards.pairs(lambda apart: -F.logsigmoid(apart - self.config.gamma))
