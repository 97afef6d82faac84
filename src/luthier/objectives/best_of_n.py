"""Best of n: sample, keep the best answer of each prompt, learn it as if it had been written.

Rejection sampling into supervised fine-tuning, again and again as the policy grows: RAFT (Dong et
al. 2023, arXiv 2304.06767), expert iteration, the first rounds of Llama 2's tuning (Touvron et al.
2023, arXiv 2307.09288). ``-log p`` of the kept answers' tokens. Departure: answers are those of the
step alone, not of all steps so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from luthier.core.contracts import Models
from luthier.core.records import Batch, Example
from luthier.objectives._online import OnlineConfig, OnlineObjective
from luthier.objectives._rollout import Rollout, pruned


class Config(OnlineConfig):
    """Settings of best of n."""

    kind: str = "best_of_n"
    answers: int = Field(default=4, ge=1)
    """``n``, sampled answers to each prompt."""
    least: float | None = None
    """Reward below which not even the best answer is learned; none if unset."""
    inner_epochs: int = Field(default=1, ge=1)
    """Passes over the kept answers of a step."""
    mini_batches: int = Field(default=1, ge=1)
    """Optimizer updates in a pass."""


class Objective(OnlineObjective):
    """See the module."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.inner_epochs, self.mini_batches = config.inner_epochs, config.mini_batches

    def credit(
        self, examples: Sequence[Example], memory: dict[str, float]
    ) -> tuple[Sequence[Example], dict[str, float]]:
        """The best answer of each prompt, the first of several; the others are left out."""
        figures = self.figures(Rollout.of(examples))
        made, earned = [], []
        for example in examples:
            rewards = example.targets["answer"]["reward"]
            best = int(rewards.argmax())
            if self.config.least is None or rewards[best] >= self.config.least:
                made.append(pruned(example, [best]))
                earned.append(float(rewards[best]))
        figures["learned"] = len(made) / len(examples)
        if earned:
            figures["best_reward"] = sum(earned) / len(earned)
        return made, figures

    def weights(self, batch: Batch) -> dict[str, float]:
        """Tokens of the kept answers."""
        return {"nll": float(batch.targets["lm"]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of their negative log-likelihoods."""
        return {"nll": models.policy.nll(batch, models.policy.hidden(batch))}
