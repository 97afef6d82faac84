"""REINFORCE leave-one-out: each answer against the mean of the others to the same prompt.

``A_i = R_i - mean of R_j, j != i`` and the gradient ``A_i grad log policy(answer_i)``, an answer
being one action (Ahmadian et al. 2024, arXiv 2402.14740). ``R`` is the reward less ``kl`` times the
answer's divergence from the model at the start. Where answers are learned from more than once, the
ratio of whole answers is clipped as in PPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from luthier.core.contracts import Models
from luthier.core.records import Batch, Example
from luthier.objectives._online import OnlineObjective, Repeated
from luthier.objectives._rollout import Rollout, over_answers
from luthier.ops.advantages import leave_one_out
from luthier.ops.surrogate import clipped_surrogate


class Config(Repeated):
    """Settings of RLOO."""

    kind: str = "rloo"
    answers: int = Field(default=4, ge=2)
    """Sampled answers to each prompt."""
    clip: float = Field(default=0.2, gt=0)
    """How far an answer's ratio may be from 1."""
    kl: float = Field(default=0.05, ge=0)
    """Strength of the pull towards the model at the start, as part of the reward."""


class Objective(OnlineObjective):
    """See the module."""

    config: Config
    watched: frozenset[str] = frozenset({"entropy", "clipped"})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.inner_epochs, self.mini_batches = config.inner_epochs, config.mini_batches
        self.needs_reference = config.kl > 0 or config.kl_stop is not None
        self.needs_old = config.repeats

    def credit(
        self, examples: Sequence[Example], memory: dict[str, float]
    ) -> tuple[Sequence[Example], dict[str, float]]:
        """Each answer's advantage."""
        rollout = Rollout.of(examples)
        rewards = rollout.pulled(self.config.kl)
        advantage = leave_one_out(rewards, rollout.answers["group"])
        made = rollout.with_columns("answer", {"advantage": advantage})
        return made, self.figures(rollout)

    def weights(self, batch: Batch) -> dict[str, float]:
        """Answers; the entropy is watched by token."""
        answers = float(len(batch.targets["answer"]["segment"]))
        tokens = float(len(batch.targets["lm"]["token"]))
        return {"policy": answers, "entropy": tokens, "clipped": answers}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """The clipped surrogate of whole answers."""
        table, c = batch.targets["lm"], self.config
        logprobs, entropy = self.said(models.policy, batch)
        apart = over_answers(logprobs - table.get("old_logprob", logprobs.detach()), batch)
        advantage = batch.targets["answer"]["advantage"]
        losses, clipped = clipped_surrogate(apart, advantage, c.clip, c.clip)
        terms: dict[str, Any] = {"policy": losses.sum(), "entropy": entropy.detach().sum()}
        return {**terms, "clipped": clipped.to(losses.dtype).sum()}
