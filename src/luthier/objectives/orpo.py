"""Odds-ratio preference optimisation: learning an answer, and leaving the other, in one run.

``-log p(c) + beta (-log sigmoid(log odds(c) - log odds(r)))`` with ``odds = p / (1 - p)`` and
``p`` the geometric mean of an answer's token probabilities (Hong et al. 2024, arXiv 2403.07691).
No reference model: it takes the place of supervised fine-tuning and of what follows it. The first
term is a mean over the chosen answers' tokens, the second one over pairs.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from luthier.core.contracts import KindConfig
from luthier.core.records import Batch
from luthier.objectives._pairs import PairObjective
from luthier.ops.preferences import Sides, log_odds


class Config(KindConfig):
    """Settings of odds-ratio preference optimisation."""

    kind: str = "orpo"
    beta: float = Field(default=0.1, gt=0)
    """Weight of the odds ratio beside the chosen answers' likelihood: the paper's lambda."""


class Objective(PairObjective):
    """See the module."""

    config: Config

    @property
    def likelihood(self) -> float:
        """The chosen answers are learned."""
        return 1.0

    @property
    def strength(self) -> float:
        """``beta``."""
        return self.config.beta

    def rewards(self, sums: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """An answer's log odds."""
        return log_odds(sums / lengths)

    def preferences(self, rewards: Sides) -> Tensor:
        """The mean over a prompt's pairs."""
        return rewards.pairs(lambda apart: -F.logsigmoid(apart))
