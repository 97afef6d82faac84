"""Group-relative policy optimisation: of several answers to a prompt, more of the better ones.

``J = E[ min(r A, clip(r, 1 - e_low, 1 + e_high) A) ] - beta KL(policy || reference)`` with the
ratio ``r = policy(token) / sampler(token)`` and ``A = (reward - mean) / std`` over the prompt's
``answers`` (Shao et al. 2024, arXiv 2402.03300). No value model is learned: the group is the
baseline.

Settings make its descendants:

- ``loss: token`` and ``clip_high`` above ``clip``, ``redraws`` (DAPO: Yu et al. 2025, arXiv
  2503.14476): long answers weigh as many tokens as they have, unlikely tokens keep room to rise,
  prompts whose answers all earned the same are replaced.
- ``loss: constant`` and ``scale: none`` (Dr. GRPO: Liu et al. 2025, arXiv 2503.20783): no division
  by an answer's length, which favours long wrong answers, nor by the standard deviation.
- ``ratio: sequence`` with ``loss: answer`` (GSPO: Zheng et al. 2025, arXiv 2507.18071): one ratio
  an answer, the geometric mean of its tokens', clipped as a whole.

Departures: ``loss`` is ``token`` unless set (the paper's is ``answer``); the divergence's gradient
is k2's, that of ``KL(policy || reference)``, unless ``kl_estimator: k3`` asks for the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from luthier.core.contracts import Models
from luthier.core.records import Batch, Example
from luthier.core.settings import RefusalError
from luthier.objectives._online import OnlineObjective, Repeated
from luthier.objectives._rollout import Rollout
from luthier.ops.advantages import group_relative, kl_estimate, kl_loss, per_answer
from luthier.ops.surrogate import clipped_surrogate


class Config(Repeated):
    """Settings of GRPO and its descendants."""

    kind: str = "grpo"
    answers: int = Field(default=8, ge=2)
    """Sampled answers to each prompt, the group."""
    scale: Literal["group", "batch", "none"] = "group"
    """What rewards less their group's mean are divided by: its standard deviation, that of the
    whole step, or nothing (Dr. GRPO)."""
    loss: Literal["token", "answer", "constant"] = "token"
    """Mean over all tokens (DAPO), over answers of their tokens' mean (GRPO's paper), or over
    answers of their tokens' sum by ``max_new_tokens`` (Dr. GRPO)."""
    ratio: Literal["token", "sequence"] = "token"
    """A ratio each token, or one an answer (GSPO)."""
    clip: float = Field(default=0.2, gt=0)
    """How far the ratio may fall below 1, and rise above it unless ``clip_high`` says; GSPO's paper
    has 3e-4."""
    clip_high: float | None = Field(default=None, gt=0)
    """How far it may rise; DAPO's is 0.28."""
    kl: float = Field(default=0.0, ge=0)
    """Strength of the pull towards the model at the start; GRPO's paper has 0.04."""
    kl_estimator: Literal["k2", "k3"] = "k2"
    """Whose gradient pulls: k2's that of KL(policy || start), k3's that of KL(start || policy)."""
    redraws: int = Field(default=0, ge=0)
    """How often, in a step, prompts whose answers all earned the same are replaced by others
    (DAPO's dynamic sampling)."""

    @model_validator(mode="after")
    def _pull(self) -> Config:
        if self.kl == 0 and self.changed("kl_estimator"):
            raise RefusalError("'kl_estimator' has no effect without a pull", "set kl, as 0.04")
        return self


class Objective(OnlineObjective):
    """See the module."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.inner_epochs, self.mini_batches = config.inner_epochs, config.mini_batches
        self.redraws = config.redraws
        self.needs_reference = config.kl > 0 or config.kl_stop is not None
        self.needs_old = config.repeats
        apart = {"divergence"} if self.needs_reference else set[str]()
        self.watched = frozenset({"entropy", "clipped", *apart})

    def keeps(self, example: Example) -> bool:
        """Whether its answers earned different rewards."""
        rewards = example.targets["answer"]["reward"]
        return bool(rewards.max() > rewards.min())

    def credit(
        self, examples: Sequence[Example], memory: dict[str, float]
    ) -> tuple[Sequence[Example], dict[str, float]]:
        """Each answer's advantage, and what a token of it weighs."""
        rollout = Rollout.of(examples)
        answers, owner = rollout.answers, rollout.tokens["owner"]
        advantage = group_relative(answers["reward"], answers["group"], self.config.scale)
        share = {
            "token": torch.ones(rollout.count, dtype=torch.float64),
            "answer": 1 / answers["length"],
            "constant": torch.full_like(advantage, 1 / self.config.max_new_tokens),
        }[self.config.loss]
        made = rollout.with_columns("lm", {"advantage": advantage[owner], "share": share[owner]})
        return made, self.figures(rollout)

    def weights(self, batch: Batch) -> dict[str, float]:
        """Tokens, or answers where each counts once."""
        table = batch.targets["lm"]
        tokens = float(len(table["token"]))
        answers = float(len(batch.targets["answer"]["segment"]))
        by = tokens if self.config.loss == "token" else answers
        pull = {"kl": by} if self.config.kl else {}
        apart = {"divergence": tokens} if self.needs_reference else {}
        return {"policy": by, **pull, **apart, "entropy": tokens, "clipped": tokens}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """The clipped surrogate, the pull, and what is watched."""
        c, table = self.config, batch.targets["lm"]
        logprobs, entropy = self.said(models.policy, batch)
        apart = logprobs - table.get("old_logprob", logprobs.detach())
        if c.ratio == "sequence":
            apart = _over_answers(apart, table)
        high = c.clip if c.clip_high is None else c.clip_high
        losses, clipped = clipped_surrogate(apart, table["advantage"], c.clip, high)
        share = table["share"].to(losses.dtype)
        terms: dict[str, Any] = {"policy": (losses * share).sum()}
        if self.needs_reference:
            start = table["reference_logprob"]
            if c.kl:
                terms["kl"] = c.kl * (kl_loss(logprobs, start, c.kl_estimator) * share).sum()
            terms["divergence"] = kl_estimate(logprobs.detach(), start, "k3").sum()
        terms["entropy"] = entropy.detach().sum()
        terms["clipped"] = clipped.to(losses.dtype).sum()
        return terms


def _over_answers(apart: Tensor, table: Mapping[str, Tensor]) -> Tensor:
    """The mean over each answer's tokens, at every one of them (GSPO, equation 7)."""
    _, place, counts = torch.unique(table["segment"], return_inverse=True, return_counts=True)
    means: Tensor = per_answer(apart, place, len(counts)) / counts
    return means[place]
