"""Knowledge distillation: a language model learns from a larger one's whole distribution.

``alpha T^2 D(p, q) + (1 - alpha) (-log q_1(x))`` for every learned token, with ``p`` and ``q`` the
teacher's and the student's distributions over the next token, softened by the temperature ``T``
(Hinton et al. 2015, arXiv 1503.02531; ``T^2`` keeps the two parts' gradients in proportion as ``T``
changes), and ``q_1`` the student's own. ``D`` is the forward or the reverse Kullback-Leibler
divergence (Gu et al. 2023, arXiv 2306.08543) or the generalised Jensen-Shannon divergence (Agarwal
et al. 2023, arXiv 2306.13649).

The teacher is run once over every example; its ``top_k`` likeliest tokens and the mass of all
others are kept. Departure: the last two papers also learn from texts that the student sampled;
here the texts are those of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import Head, KindConfig, Models
from luthier.core.errors import DataError
from luthier.core.records import (
    Batch,
    Conversation,
    ConversationTree,
    Example,
    Record,
    Text,
    causal_example,
)
from luthier.core.settings import RefusalError
from luthier.objectives import sft
from luthier.ops.divergence import Kind, head_divergence, top_classes

#: The name of the teacher among the companions, and the columns of what it said.
TEACHER = "teacher"
_COLUMNS = ("teacher_token", "teacher_logprob", "teacher_rest")


class Softened(KindConfig):
    """What every way of distilling a distribution is told."""

    teacher: str = Field(min_length=1)
    """The model to learn from: a hub id, a folder, a finished run or an adapter."""
    temperature: float = Field(default=2.0, gt=0)
    """Both distributions are softened by it; above 1 the unlikely classes speak louder."""
    alpha: float = Field(default=0.5, gt=0, le=1)
    """Share of the teacher's distribution in the loss; the rest is the data's own answer."""
    divergence: Kind = "forward_kl"
    """``forward_kl`` covers all that the teacher might say, ``reverse_kl`` keeps to what it most
    likely says, ``jensen_shannon`` lies between them."""
    beta: float | None = Field(default=None, gt=0, lt=1)
    """Of ``jensen_shannon``: the teacher's share in the mean of both; 0.5 if unset."""

    @model_validator(mode="after")
    def _beta_counts(self) -> Softened:
        if self.beta is not None and self.divergence != "jensen_shannon":
            raise RefusalError(
                f"'beta' has no meaning for {self.divergence}", "divergence: jensen_shannon"
            )
        return self

    @property
    def mixture(self) -> float:
        """``beta`` as the formula has it."""
        return 0.5 if self.beta is None else self.beta


class Config(Softened):
    """Settings of distillation."""

    kind: str = "distillation"
    top_k: int = Field(default=64, ge=1)
    """The teacher's likeliest tokens that are kept of every position; the others are one class."""
    train_on: Literal["assistant", "last_turn", "all"] = "assistant"
    """Every assistant turn, the last one only (of each path), or the whole conversation."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Conversation, ConversationTree, Text)
    metrics: ClassVar[tuple[str, ...]] = sft.Objective.metrics
    overlong: ClassVar[str] = "refuse"
    needs_reference: ClassVar[bool] = False
    independent_leaves: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self._talk = sft.Objective(sft.Config(train_on=config.train_on))

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head."""
        return (Head("lm"),)

    @property
    def companions(self) -> Mapping[str, str]:
        """The teacher."""
        return {TEACHER: self.config.teacher}

    def encode(self, record: Record, codec: Codec) -> Example:
        """A conversation as in supervised fine-tuning; of raw text every token is learned."""
        if not isinstance(record, Text):
            return self._talk.encode(record, codec)
        tokens = codec.document(record.text)
        if len(tokens) < 2:
            raise DataError("an empty document", str(record.origin), code="no-target")
        return causal_example([(tokens, True)], record.origin)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """What the teacher says at every learned token."""
        c, teacher = self.config, models.companions[TEACHER]
        rows = teacher.hidden(batch).index_select(0, batch.targets["lm"]["position"])
        found = top_classes(teacher.logits, rows, c.top_k, c.temperature, _width(teacher, rows))
        return {"lm": dict(zip(_COLUMNS, found, strict=True))}

    def weights(self, batch: Batch) -> dict[str, float]:
        """Learned tokens."""
        tokens = float(batch.targets["lm"]["weight"].sum())
        return {"distillation": tokens} | ({"nll": tokens} if self.config.alpha < 1 else {})

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the learned tokens' divergences, and of their negative log-likelihoods."""
        c, policy, table = self.config, models.policy, batch.targets["lm"]
        hidden = policy.hidden(batch)
        rows = hidden.index_select(0, table["position"])
        token, logprob, rest = (table[name] for name in _COLUMNS)
        apart = head_divergence(
            policy.logits,
            rows,
            (token, logprob, rest),
            table["weight"],
            _width(policy, rows),
            kind=c.divergence,
            temperature=c.temperature,
            beta=c.mixture,
        )
        terms = {"distillation": c.alpha * c.temperature**2 * apart}
        if c.alpha < 1:
            terms["nll"] = (1 - c.alpha) * policy.nll(batch, hidden)
        return terms


def _width(model: object, rows: Tensor) -> int:
    """Outputs of a model's language-model head."""
    return int(model.logits(rows[:0]).shape[-1])  # type: ignore[attr-defined]
