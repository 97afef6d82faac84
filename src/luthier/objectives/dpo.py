"""Direct preference optimisation: answers preferred become likelier than the others.

``-log sigmoid(beta (log p(c)/p_0(c) - log p(r)/p_0(r)))`` of a chosen and a rejected answer, with
``p_0`` the model of step 0 and whole answers' log-probabilities (Rafailov et al. 2023, arXiv
2305.18290). Other losses of the same difference: :func:`luthier.ops.preferences.pair_loss`; ``ipo``
takes log-probabilities a token, as its authors do, and others may (Lambert et al. 2024, arXiv
2411.15124). With ``sft`` the chosen answer is learned as well (Pang et al. 2024, arXiv 2404.19733).

What ``p_0`` says is computed once, before the first step, and kept in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from luthier.core.contracts import KindConfig, Models
from luthier.core.records import Batch
from luthier.core.settings import RefusalError
from luthier.objectives._answers import ANSWER, REFERENCE, reference_columns
from luthier.objectives._pairs import PairObjective
from luthier.ops.preferences import PairLoss, Sides, pair_loss


class Config(KindConfig):
    """Settings of direct preference optimisation."""

    kind: str = "dpo"
    loss: PairLoss = "sigmoid"
    """``sigmoid`` is DPO's own, ``ipo`` aims at a fixed margin, ``hinge`` stops at one,
    ``robust`` counts on ``label_smoothing`` of the pairs being the wrong way round."""
    beta: float = Field(default=0.1, gt=0)
    """How dearly leaving the model of step 0 is paid for; of ``ipo`` the margin is half of one
    over it."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Of ``sigmoid`` and ``robust``: share of the pairs taken to be the wrong way round."""
    length_normalised: bool | Literal["auto"] = "auto"
    """Log-probabilities a token instead of sums; ``auto`` for ``ipo`` alone."""
    sft: float = Field(default=0.0, ge=0)
    """Coefficient of the chosen answers' own negative log-likelihood, a mean over their tokens."""

    @model_validator(mode="after")
    def _counts(self) -> Config:
        if self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            raise RefusalError(
                f"'label_smoothing' has no meaning for {self.loss}", "loss: sigmoid, or robust"
            )
        if self.loss == "robust" and not self.label_smoothing:
            raise RefusalError(
                "'robust' without 'label_smoothing' is sigmoid", "label_smoothing: 0.1"
            )
        return self

    @property
    def by_token(self) -> bool:
        """Whether log-probabilities are divided by an answer's length."""
        return self.loss == "ipo" if self.length_normalised == "auto" else self.length_normalised


class Objective(PairObjective):
    """See the module."""

    config: Config
    #: What of the settings the columns depend on: nothing.
    column_settings: ClassVar[Mapping[str, object]] = {}

    @property
    def likelihood(self) -> float:
        """As the recipe has it."""
        return self.config.sft

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """What the model of step 0 says of every answer."""
        return reference_columns(models, batch)

    def rewards(self, sums: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """``beta`` times how much likelier the answer has become, in nats."""
        above: Tensor = sums - batch.targets[ANSWER][REFERENCE].to(sums)
        return (above / lengths if self.config.by_token else above) * self.config.beta

    def preferences(self, rewards: Sides) -> Tensor:
        """The mean over a prompt's pairs."""
        c = self.config

        def each(apart: Tensor) -> Tensor:
            return pair_loss(c.loss, apart / c.beta, beta=c.beta, smoothing=c.label_smoothing)

        return rewards.pairs(each)
