"""Sequence-level distillation: supervised fine-tuning on a teacher's own answers.

The teacher answers every training prompt once, and the student learns these answers in place of
the rows' own: ``-sum_t log q(y_t | x, y_<t)`` with ``y`` the teacher's answer to ``x`` (Kim & Rush
2016, arXiv 1606.07947). Only texts pass between the two, so their vocabularies may differ.
Held-out rows keep the answers that the data give. Departure: the teacher answers greedily or
samples, where the paper searches with a beam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import KindConfig, Models
from luthier.core.records import Batch, Conversation, Example, Record, Turn
from luthier.objectives import sft


class Config(KindConfig):
    """Settings of sequence-level distillation."""

    kind: str = "sequence_distillation"
    teacher: str = Field(min_length=1)
    """The model that answers: a hub id, a folder, a finished run or an adapter."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in the teacher's tokens."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the likeliest token each time; above, answers are sampled."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Smallest set of tokens with this probability (Holtzman et al. 2020, arXiv 1904.09751)."""
    seed: int = Field(default=0, ge=0)
    """Of the draws."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Szegedy et al. 2016 (arXiv 1512.00567)."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Conversation,)
    metrics: ClassVar[tuple[str, ...]] = sft.Objective.metrics
    overlong: ClassVar[str] = "refuse"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        settings = sft.Config(train_on="last_turn", label_smoothing=config.label_smoothing)
        self._talk = sft.Objective(settings)
        self.heads = self._talk.heads

    @property
    def answerer(self) -> str:
        """The teacher."""
        return self.config.teacher

    @property
    def sampling(self) -> Mapping[str, Any]:
        """How it answers."""
        names = ("max_new_tokens", "temperature", "top_p", "seed")
        return {name: getattr(self.config, name) for name in names}

    def question(self, record: Record) -> tuple[Turn, ...]:
        """The turns before the last answer."""
        assert isinstance(record, Conversation)
        answers = [i for i, turn in enumerate(record.turns) if turn.role == "assistant"]
        return record.turns[: answers[-1]] if answers else record.turns

    def answered(self, record: Record, answer: str) -> Record:
        """The conversation with the teacher's answer as its last turn."""
        return Conversation(record.origin, (*self.question(record), Turn("assistant", answer)))

    def encode(self, record: Record, codec: Codec) -> Example:
        """A conversation whose last answer is learned."""
        return self._talk.encode(record, codec)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def weights(self, batch: Batch) -> dict[str, float]:
        """Learned tokens."""
        return self._talk.weights(batch)

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the learned tokens' negative log-likelihoods."""
        return self._talk.loss(models, batch)
