"""Contrastive preference optimisation: DPO without its reference, and the chosen answer learned.

``-log sigmoid(beta (log p(c) - log p(r))) - sft log p(c)`` (Xu et al. 2024, arXiv 2401.08417), the
second term a mean over the chosen answers' tokens. Made for translations, where both answers are
good and one is better.
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
    """Settings of contrastive preference optimisation."""

    kind: str = "cpo"
    beta: float = Field(default=0.1, gt=0)
    """Factor on the difference of the answers' log-probabilities."""
    sft: float = Field(default=1.0, ge=0)
    """Coefficient of the chosen answers' own negative log-likelihood, a mean over their tokens."""


class Objective(PairObjective):
    """See the module."""

    config: Config

    @property
    def likelihood(self) -> float:
        """As the recipe has it."""
        return self.config.sft

    def rewards(self, sums: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """``beta`` times an answer's log-probability."""
        return self.config.beta * sums

    def preferences(self, rewards: Sides) -> Tensor:
        """The mean over a prompt's pairs."""
        return rewards.pairs(lambda apart: -F.logsigmoid(apart))
