"""REINFORCE with a running baseline: the plainest way to learn from what answers earn.

The gradient ``(R - b) grad log policy(answer)`` (Williams 1992), ``R`` the reward less ``kl`` times
the answer's divergence from the model at the start, ``b`` the mean of earlier steps' rewards, old
ones forgotten. One answer to a prompt is enough, and each is learned from once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from luthier.core.contracts import Models
from luthier.core.records import Batch, Example
from luthier.objectives._online import OnlineConfig, OnlineObjective
from luthier.objectives._rollout import Rollout, over_answers
from luthier.ops.advantages import whiten

_BASELINE = "baseline"


class Config(OnlineConfig):
    """Settings of REINFORCE."""

    kind: str = "reinforce"
    answers: int = Field(default=1, ge=1)
    """Sampled answers to each prompt."""
    decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the baseline: share of it that a step keeps."""
    whiten_advantages: bool = False
    """Shift and scale advantages to mean 0 and variance 1 over the step (REINFORCE++: Hu et al.
    2025, arXiv 2501.03262)."""
    kl: float = Field(default=0.05, ge=0)
    """Strength of the pull towards the model at the start, as part of the reward."""


class Objective(OnlineObjective):
    """See the module."""

    config: Config
    watched: frozenset[str] = frozenset({"entropy"})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.needs_reference = config.kl > 0 or config.kl_stop is not None

    def credit(
        self, examples: Sequence[Example], memory: dict[str, float]
    ) -> tuple[Sequence[Example], dict[str, float]]:
        """Each answer's advantage over the baseline, which learns of this step afterwards."""
        c, rollout = self.config, Rollout.of(examples)
        rewards = rollout.pulled(c.kl)
        mean = float(rewards.mean())
        baseline = memory.get(_BASELINE, mean)
        memory[_BASELINE] = c.decay * baseline + (1 - c.decay) * mean
        advantage = rewards - baseline
        if c.whiten_advantages:
            advantage = whiten(advantage)
        made = rollout.with_columns("answer", {"advantage": advantage})
        return made, {**self.figures(rollout), _BASELINE: baseline}

    def weights(self, batch: Batch) -> dict[str, float]:
        """Answers; the entropy is watched by token."""
        answers = float(len(batch.targets["answer"]["segment"]))
        return {"policy": answers, "entropy": float(len(batch.targets["lm"]["token"]))}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Each answer's log-probability times its advantage."""
        logprobs, entropy = self.said(models.policy, batch)
        summed = over_answers(logprobs, batch)
        advantage = batch.targets["answer"]["advantage"].to(summed.dtype)
        return {"policy": -(summed * advantage).sum(), "entropy": entropy.detach().sum()}
