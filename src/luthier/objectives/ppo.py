"""Proximal policy optimisation with a value head, as language models are tuned with it.

``E[ min(r A, clip(r, 1 - e, 1 + e) A) ]`` with the ratio ``r = policy(token) / sampler(token)``
(Schulman et al. 2017, arXiv 1707.06347). Each token earns ``-beta (log policy - log start)``, the
last one the answer's reward as well (Ziegler et al. 2019, arXiv 1909.08593; Ouyang et al. 2022,
arXiv 2203.02155); advantages are estimated by GAE (arXiv 1506.02438) with a value head on the
policy's own trunk, whose loss is ``max((V - R)^2, (clip(V) - R)^2) / 2``.

``kl_target`` moves ``beta`` so that an answer's divergence stays near it: ``beta (1 + clip(kl /
target - 1, -0.2, 0.2) answers / horizon)`` after each step (Ziegler et al.). Departure: the value
head begins at zero, not as a reward model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from luthier.core.contracts import Head, HeadedModel, Models
from luthier.core.records import Batch, Example
from luthier.core.settings import RefusalError
from luthier.objectives._online import OnlineObjective, Repeated
from luthier.objectives._rollout import Rollout
from luthier.ops.advantages import (
    explained_variance,
    gae,
    kl_estimate,
    kl_loss,
    per_answer,
    whiten,
)
from luthier.ops.surrogate import clipped_surrogate, clipped_value_loss

#: What ``memory`` calls the strength of the pull.
_PULL = "kl"


class Config(Repeated):
    """Settings of PPO."""

    kind: str = "ppo"
    answers: int = Field(default=1, ge=1)
    """Sampled answers to each prompt."""
    inner_epochs: int = Field(default=4, ge=1)
    """Passes over the answers of a step."""
    clip: float = Field(default=0.2, gt=0)
    """How far the ratio may fall below 1, and rise above it unless ``clip_high`` says."""
    clip_high: float | None = Field(default=None, gt=0)
    """How far it may rise."""
    value_clip: float | None = Field(default=0.2, gt=0)
    """How far a value may move from what it was when the answer was sampled; null for no bound."""
    value_weight: float = Field(default=0.1, gt=0)
    """Factor of the value head's loss."""
    value_trunk: Literal["shared", "own"] = "shared"
    """Whether the value head reads the policy's trunk, or a copy of it that is trained beside it:
    twice the memory, and a loss that does not move the policy."""
    entropy: float = Field(default=0.0, ge=0)
    """Factor of a bonus for undecided tokens, which keeps answers different."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount of what is earned later."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Of GAE: 1 trusts what was really earned, 0 the value head."""
    kl: float = Field(default=0.05, ge=0)
    """Strength of the pull towards the model at the start."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Whether the pull is part of what tokens earn (k1), or of the loss (k2)."""
    kl_target: float | None = Field(default=None, gt=0)
    """Divergence of an answer, in nats, near which ``kl`` is moved from step to step; ``kl`` stays
    as it is if unset."""
    kl_horizon: float = Field(default=10_000, gt=0)
    """Of ``kl_target``: answers in which ``kl`` moves by a fifth at most; fewer move it faster."""
    whiten_rewards: bool = False
    """Scale what tokens earn to variance 1 over the step."""
    whiten_advantages: bool = True
    """Shift and scale advantages to mean 0 and variance 1 over the step."""

    @model_validator(mode="after")
    def _adaptive(self) -> Config:
        if self.kl_target is not None and (self.kl_in == "loss" or self.kl == 0):
            raise RefusalError(
                "'kl_target' moves a pull that is part of the reward, and there is none",
                "kl_in: reward, and kl above 0",
            )
        if self.kl_target is None and self.changed("kl_horizon"):
            raise RefusalError("'kl_horizon' has no effect without 'kl_target'", "set kl_target")
        if self.kl == 0 and self.changed("kl_in"):
            raise RefusalError("'kl_in' has no effect without a pull", "kl above 0")
        return self


class Objective(OnlineObjective):
    """See the module."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.inner_epochs, self.mini_batches = config.inner_epochs, config.mini_batches
        self.needs_old = True
        self.needs_reference = config.kl > 0 or config.kl_stop is not None
        self.watched = frozenset({"entropy", "clipped", "value_clipped"})
        self.own_value_trunk = config.value_trunk == "own"

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head, and the value head."""
        return (Head("lm"), Head("value"))

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """What policy and value head said when the answers were sampled, and the start says."""
        with torch.no_grad():
            hidden = models.policy.hidden(batch)
            found = {
                "old_logprob": self.said(models.policy, batch, hidden)[0],
                "old_value": _values(models.policy, batch, hidden),
            }
        if self.needs_reference:
            with models.reference() as reference:
                found["reference_logprob"] = self.said(reference, batch)[0]
        return {"lm": found}

    def credit(
        self, examples: Sequence[Example], memory: dict[str, float]
    ) -> tuple[Sequence[Example], dict[str, float]]:
        """Each token's advantage and return, and the pull of the next step."""
        c, rollout = self.config, Rollout.of(examples)
        tokens, answers = rollout.tokens, rollout.answers
        pull = memory.get(_PULL, c.kl)
        earned = torch.zeros_like(rollout.old)
        figures = self.figures(rollout)
        if self.needs_reference:
            apart = kl_estimate(rollout.old, tokens["reference_logprob"], "k1")
            if c.kl_in == "reward":
                earned = earned - pull * apart
            of_answers = float(per_answer(apart, tokens["owner"], rollout.count).mean())
            figures |= {"answer_kl": of_answers, "pull": pull}
            if c.kl_target is not None:
                error = max(-0.2, min(0.2, of_answers / c.kl_target - 1))
                memory[_PULL] = pull * (1 + error * rollout.count / c.kl_horizon)
        ends = answers["length"].long().cumsum(0) - 1
        earned[ends] += answers["reward"]
        if c.whiten_rewards:
            earned = whiten(earned, shift=False)
        values = tokens["old_value"]
        advantage = gae(earned, values, tokens["owner"], c.gamma, c.lam)
        returns = advantage + values
        figures["explained_variance"] = explained_variance(values, returns)
        if c.whiten_advantages:
            advantage = whiten(advantage)
        columns = {"advantage": advantage, "return": returns}
        return rollout.with_columns("lm", columns), figures

    def weights(self, batch: Batch) -> dict[str, float]:
        """Tokens."""
        names = ["policy", "value", "entropy", "clipped", "value_clipped"]
        names += ["bonus"] if self.config.entropy else []
        names += ["kl"] if self._pulled else []
        return dict.fromkeys(names, float(len(batch.targets["lm"]["token"])))

    @property
    def _pulled(self) -> bool:
        return bool(self.config.kl) and self.config.kl_in == "loss"

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """The clipped surrogate, the value head's loss, bonus and pull, and what is watched."""
        c, table = self.config, batch.targets["lm"]
        hidden = models.policy.hidden(batch)
        logprobs, entropy = self.said(models.policy, batch, hidden)
        apart = logprobs - table["old_logprob"]
        high = c.clip if c.clip_high is None else c.clip_high
        losses, clipped = clipped_surrogate(apart, table["advantage"], c.clip, high)
        values = _values(models.policy, batch, hidden)
        errors, bounded = clipped_value_loss(
            values, table["old_value"], table["return"], c.value_clip
        )
        terms: dict[str, Any] = {
            "policy": losses.sum(),
            "value": c.value_weight * errors.sum(),
            "entropy": entropy.detach().sum(),
            "clipped": clipped.to(losses.dtype).sum(),
            "value_clipped": bounded.to(losses.dtype).sum(),
        }
        if c.entropy:
            terms["bonus"] = -c.entropy * entropy.sum()
        if self._pulled:
            terms["kl"] = c.kl * kl_loss(logprobs, table["reference_logprob"], "k2").sum()
        return terms


def _values(model: Any, batch: Batch, hidden: Tensor) -> Tensor:
    """``[R]``, what is expected before each sampled token."""
    assert isinstance(model, HeadedModel), "a policy without a value head"
    states = model.valued(batch, hidden) if hasattr(model, "valued") else hidden
    rows = states.index_select(0, batch.targets["lm"]["position"])
    return model.outputs("value", rows)[:, 0]
