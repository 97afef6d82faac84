"""Self-supervised language modelling: learn every token of raw text.

``-sum_t log p(x_t | x_<t)`` within each document; documents never see each other. Conversations
are learned whole, in the model's template. A document longer than the context becomes
consecutive windows in which every token is still predicted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import Head, KindConfig, Models
from luthier.core.errors import DataError
from luthier.core.records import Batch, Conversation, Example, Record, Text, causal_example


class Config(KindConfig):
    """Settings of language modelling."""

    kind: str = "language_modeling"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Szegedy et al. 2016 (arXiv 1512.00567)."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Text, Conversation)
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "token_accuracy")
    overlong: ClassVar[str] = "window"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head."""
        return (Head("lm"),)

    def look_ahead(self, records: Sequence[Record], codec: Codec) -> None:
        """Conversations and documents that :meth:`encode` is about to be given."""
        codec.ahead(
            (record.turns for record in records if isinstance(record, Conversation)),
            (record.text for record in records if isinstance(record, Text)),
        )

    def encode(self, record: Record, codec: Codec) -> Example:
        """A document (or a rendered conversation) as one segment, every token learned."""
        if isinstance(record, Text):
            tokens: Sequence[int] = codec.document(record.text)
        else:
            assert isinstance(record, Conversation)
            tokens = [t for piece in codec.dialogue(record.turns) for t in piece.tokens]
        if len(tokens) < 2:
            raise DataError("an empty document", str(record.origin), code="no-target")
        return causal_example([(tokens, True)], record.origin)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def weights(self, batch: Batch) -> dict[str, float]:
        """Tokens."""
        return {"nll": float(batch.targets["lm"]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of all tokens' negative log-likelihoods."""
        hidden = models.policy.hidden(batch)
        smoothing = self.config.label_smoothing
        return {"nll": models.policy.nll(batch, hidden, smoothing=smoothing)}
