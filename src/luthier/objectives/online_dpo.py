"""Online direct preference optimisation: pairs are sampled and ranked as training goes.

``-log sigmoid(beta ((log p(best) - log p_start(best)) - (log p(worst) - log p_start(worst))))``
(Rafailov et al. 2023, arXiv 2305.18290) over the best and the worst of each prompt's answers, by
reward (Guo et al. 2024, arXiv 2402.04792). A prompt whose answers all earn the same makes no pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from luthier.core.contracts import Models
from luthier.core.records import Batch, Example
from luthier.objectives._online import OnlineConfig, OnlineObjective
from luthier.objectives._rollout import Rollout, over_answers, pruned


class Config(OnlineConfig):
    """Settings of online DPO."""

    kind: str = "online_dpo"
    answers: int = Field(default=2, ge=2)
    """Sampled answers to each prompt, of which the best and the worst are learned from."""
    beta: float = Field(default=0.1, gt=0)
    """How dear it is to leave the model at the start."""
    inner_epochs: int = Field(default=1, ge=1)
    """Passes over the pairs of a step."""
    mini_batches: int = Field(default=1, ge=1)
    """Optimizer updates in a pass."""


class Objective(OnlineObjective):
    """See the module."""

    config: Config
    watched: frozenset[str] = frozenset({"accuracy", "margin"})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.inner_epochs, self.mini_batches = config.inner_epochs, config.mini_batches
        self.needs_reference = True

    def keeps(self, example: Example) -> bool:
        """Whether its answers earned different rewards."""
        rewards = example.targets["answer"]["reward"]
        return bool(rewards.max() > rewards.min())

    def credit(
        self, examples: Sequence[Example], memory: dict[str, float]
    ) -> tuple[Sequence[Example], dict[str, float]]:
        """The best and the worst answer of each prompt, told apart; the others are left out."""
        figures = self.figures(Rollout.of(examples))
        figures["pairs"] = sum(map(self.keeps, examples)) / len(examples)
        made = []
        for example in filter(self.keeps, examples):
            rewards = example.targets["answer"]["reward"]
            best, worst = int(rewards.argmax()), int(rewards.argmin())
            chosen = pruned(example, sorted((best, worst)))
            side = np.array([1.0, -1.0] if best < worst else [-1.0, 1.0], dtype=np.float32)
            table = {**chosen.targets["answer"], "side": side}
            targets = {**chosen.targets, "answer": table}
            made.append(Example(chosen.segments, targets, chosen.origin))
        return made, figures

    def weights(self, batch: Batch) -> dict[str, float]:
        """Pairs."""
        pairs = float(len(batch.targets["answer"]["segment"])) / 2
        return dict.fromkeys(("preference", "accuracy", "margin"), pairs)

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Each pair's loss; whether the better answer is ahead, and by how much, is watched."""
        table, answer = batch.targets["lm"], batch.targets["answer"]
        logprobs, _ = self.said(models.policy, batch)
        ahead = over_answers(logprobs - table["reference_logprob"], batch)
        margins = ahead.new_zeros(len(batch.origins)).index_add(
            0, answer["example"], ahead * answer["side"].to(ahead.dtype)
        )
        paired = torch.zeros_like(margins, dtype=torch.bool)
        paired[answer["example"]] = True
        losses = -F.logsigmoid(self.config.beta * margins)
        zero = torch.zeros_like(losses)
        known = margins.detach()
        return {
            "preference": torch.where(paired, losses, zero).sum() + 0 * logprobs.sum(),
            "accuracy": ((known > 0) & paired).to(losses.dtype).sum(),
            "margin": self.config.beta * torch.where(paired, known, zero).sum(),
        }
