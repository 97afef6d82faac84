"""Embedding tuning: texts that belong together come to lie close, all others of the step apart.

``-log softmax_c(scale * cos(a, c))[positive]`` of every anchor among the positives and the hard
negatives of all examples of a step: in-batch negatives (Henderson et al. 2017, arXiv 1705.00652),
sentence-transformers' ``MultipleNegativesRankingLoss``; with hard negatives it is the triplets'.

In-batch negatives couple the examples of a step. Where memory cuts it into micro-batches, or ranks
share it, every text is embedded once without gradient first, and each micro-batch then learns
against all of them (GradCache, Gao et al. 2021, arXiv 2101.06983), so that the gradient is that of
the whole step. Departure: with dropout the two passes draw different masks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec, text_segment
from luthier.core.contracts import Head, HeadedModel, KindConfig, Models
from luthier.core.records import Batch, Example, Pair, Record, SourceTarget
from luthier.ops.contrastive import Step, ranking_loss

#: The kind of head; the table of anchors, one row an example; the loss term.
HEAD = "embedding"
#: The table of candidates: an example's positive in slot 0, then its hard negatives.
CANDIDATES = "candidate"


class Config(KindConfig):
    """Settings of embedding tuning."""

    kind: str = "embedding"
    scale: float = Field(default=20.0, gt=0)
    """Factor on the similarity: one over the temperature."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """``cosine`` compares directions, ``dot`` lengths as well."""
    symmetric: bool = False
    """Learn to find the anchor of a positive as well, in equal parts."""
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    """How a text becomes one vector; ``auto`` goes by what the model says, or its kind."""
    negatives: int | None = Field(default=None, ge=0)
    """At most so many hard negatives of a row; as many as the rows have if unset."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Pair, SourceTarget)
    metrics: ClassVar[tuple[str, ...]] = ("retrieval",)
    overlong: ClassVar[str] = "refuse"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def heads(self) -> tuple[Head, ...]:
        """No output: the pooled state itself."""
        pooling = None if self.config.pooling == "auto" else self.config.pooling
        return (Head(HEAD, pooling=pooling),)

    def settled(self, records: Sequence[Record], known: Sequence[str]) -> Objective:
        """With the number of hard negatives, as the training rows have them."""
        if self.config.negatives is not None:
            return self
        most = max((len(r.negatives) for r in records if isinstance(r, Pair)), default=0)
        return Objective(self.config.model_copy(update={"negatives": most}))

    def encode(self, record: Record, codec: Codec) -> Example:
        """The anchor, the positive and the negatives, each a segment of its own."""
        if isinstance(record, SourceTarget):
            record = Pair(record.origin, record.source, record.target)
        assert isinstance(record, Pair)
        others = (record.positive, *record.negatives[: self.config.negatives])
        segments = tuple(text_segment(codec, text) for text in (record.anchor, *others))
        names = np.array([_name(segment.tokens) for segment in segments], dtype=np.int64)
        count = len(others)
        return Example(
            segments,
            {
                HEAD: {
                    "segment": np.zeros(1, dtype=np.int64),
                    "text": names[:1],
                    "place": np.zeros(1, dtype=np.int64),
                },
                CANDIDATES: {
                    "segment": np.arange(1, count + 1),
                    "text": names[1:],
                    "slot": np.arange(count),
                },
            },
            record.origin,
        )

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Every example with its place in the step."""
        made = []
        for place, example in enumerate(examples):
            table = {**example.targets[HEAD], "place": np.array([place], dtype=np.int64)}
            targets = {**example.targets, HEAD: table}
            made.append(Example(example.segments, targets, example.origin))
        return made

    def statistics(self, models: Models, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Every text's vector at its place; nothing where one batch is the whole step."""
        if bool(batches[0].step["whole"]):
            return {}
        count, width = int(batches[0].step["examples"]), 1 + (self.config.negatives or 0)
        figures: dict[str, Tensor] = {}
        for batch in batches:
            with torch.no_grad():
                found = self._embedded(models, batch)
            places = batch.targets[HEAD]["place"]
            for name, value in vars_of(found).items():
                if name not in figures:
                    shape = (count, *value.shape[1:])
                    figures[name] = torch.zeros(shape, dtype=_kept(value), device=value.device)
                figures[name].index_add_(0, places, value.to(_kept(value)))
        assert figures["candidates"].shape[1] == width
        return figures

    def weights(self, batch: Batch) -> dict[str, float]:
        """Anchors."""
        return {HEAD: float(len(batch.targets[HEAD]["segment"]))}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the anchors' losses; its gradient is that of the whole step's sum."""
        c, live = self.config, self._embedded(models, batch)
        how: dict[str, Any] = {
            "scale": c.scale,
            "cosine": c.similarity == "cosine",
            "symmetric": c.symmetric,
        }
        if "anchors" not in batch.step:
            every = torch.arange(len(live.anchors), device=live.anchors.device)
            return {HEAD: ranking_loss(live, every, **how).sum()}
        places = batch.targets[HEAD]["place"]
        known = {name: batch.step[name] for name in vars_of(live)}
        known["there"] = known["there"] > 0
        step = Step(**known).with_live(places, live.anchors, live.candidates)
        if not torch.is_grad_enabled():
            return {HEAD: ranking_loss(step, places, **how).sum()}
        every = torch.arange(len(step.anchors), device=places.device)
        losses = ranking_loss(step, every, **how)
        whole = losses.sum()
        # The gradient of all, through this batch's texts; the value of its own anchors alone.
        return {HEAD: losses[places].sum().detach() + (whole - whole.detach())}

    def _embedded(self, models: Models, batch: Batch) -> Step:
        """The batch's own texts, example by example."""
        policy = models.policy
        assert isinstance(policy, HeadedModel)
        anchors, others = batch.targets[HEAD], batch.targets[CANDIDATES]
        hidden = policy.hidden(batch)
        segments = torch.cat([anchors["segment"], others["segment"]])
        vectors = policy.pooled(batch, hidden, segments)
        count, width = len(anchors["segment"]), 1 + (self.config.negatives or 0)
        first, rest = vectors[:count], vectors[count:]
        place = others["example"] * width + others["slot"]

        def laid(values: Tensor) -> Tensor:
            empty = values.new_zeros(count * width, *values.shape[1:])
            return empty.index_copy(0, place, values).view(count, width, *values.shape[1:])

        there = laid(torch.ones_like(place)) > 0
        return Step(first, laid(rest), there, anchors["text"], laid(others["text"]))


def vars_of(step: Step) -> dict[str, Tensor]:
    """The tensors of a step by name."""
    return {name: getattr(step, name) for name in Step.__dataclass_fields__}


def _kept(value: Tensor) -> torch.dtype:
    """What sums of it are kept in."""
    return torch.int64 if value.dtype == torch.bool else value.dtype


def _name(tokens: Any) -> int:
    """A number for a text: texts of the same tokens have the same."""
    digest = hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=7).digest()
    return int.from_bytes(digest)
