"""An outcome model: how likely an answer is to be right, learned from right and wrong ones.

``-log sigmoid(s)`` of a right answer, ``-log sigmoid(-s)`` of a wrong one, read where the answer
ends (the verifiers of Cobbe et al. 2021, arXiv 2110.14168, at the solution's last token). Of
several sampled answers the one with the largest ``s`` is taken. Departure: the paper's verifiers
keep learning to write as well, and judge every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import Head, HeadedModel, KindConfig, Models
from luthier.core.records import Batch, Example, Record, Segment, Thumb
from luthier.objectives._answers import asked, read_segments
from luthier.ops.class_losses import multi_label_losses

#: The kind of head, the table and the loss term; the name of the one output.
HEAD, LABEL = "classification", "correct"


class Config(KindConfig):
    """Settings of outcome models."""

    kind: str = "correctness"
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    """How a prompt with its answer becomes one vector; ``auto`` goes by the kind of model, of a
    decoder the last token."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Thumb,)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "calibration")
    overlong: ClassVar[str] = "left"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def heads(self) -> tuple[Head, ...]:
        """One output, whose sigmoid is the probability."""
        pooling = None if self.config.pooling == "auto" else self.config.pooling
        return (Head(HEAD, 1, pooling, (LABEL,), "multi_label"),)

    def encode(self, record: Record, codec: Codec) -> Example:
        """The prompt and its answer as one text, with what became of it."""
        assert isinstance(record, Thumb)
        segments, _ = read_segments(asked(record), codec)
        if len(segments) > 1:  # one answer shares its prompt with no other
            segments = (Segment(np.concatenate([segment.tokens for segment in segments])),)
        table: dict[str, Any] = {
            "segment": np.zeros(1, dtype=np.int64),
            "label": np.array([[record.good]], dtype=np.float32),
            "weight": np.ones(1, dtype=np.float32),
        }
        return Example(segments, {HEAD: table}, record.origin)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def weights(self, batch: Batch) -> dict[str, float]:
        """Answers."""
        return {HEAD: float(batch.targets[HEAD]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the answers' losses."""
        policy, table = models.policy, batch.targets[HEAD]
        assert isinstance(policy, HeadedModel)
        rows = policy.pooled(batch, policy.hidden(batch), table["segment"])
        found = policy.outputs(HEAD, rows)
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        return {HEAD: (multi_label_losses(found, table["label"]) * table["weight"]).sum()}
