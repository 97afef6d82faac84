"""Sequence to sequence: learn to write a target from its source (translation, summaries).

``-sum_t log p(y_t | y_<t, x)`` over the target's tokens, its end token among them (Sutskever et
al. 2014, arXiv 1409.3215), by teacher forcing: the decoder is fed the target that the data give,
shifted right. An encoder-decoder (T5, Raffel et al. 2020, arXiv 1910.10683; BART, Lewis et al.
2020, arXiv 1910.13461) reads the source with its encoder. A causal model reads it as a user's turn
in its template, and the target is the assistant's; nothing of the source is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec, Paired
from luthier.core.contracts import Head, KindConfig, Models
from luthier.core.errors import DataError
from luthier.core.records import Batch, Example, Origin, Record, Segment, SourceTarget, Turn


class Config(KindConfig):
    """Settings of sequence-to-sequence learning."""

    kind: str = "seq2seq"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Szegedy et al. 2016 (arXiv 1512.00567)."""
    max_source_length: int | None = Field(default=None, ge=2)
    """Longest source in tokens, its template included; data.max_length alone if unset."""
    max_target_length: int | None = Field(default=None, ge=2)
    """Longest target in tokens, its end token included; data.max_length alone if unset."""
    source_language: str | None = Field(default=None, min_length=1)
    """As the tokenizer of a model of several languages names it (``en_XX``, ``eng_Latn``)."""
    target_language: str | None = Field(default=None, min_length=1)
    """The language that the model is to write, named alike."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (SourceTarget,)
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "token_accuracy", "rouge", "bleu", "chrf")
    overlong: ClassVar[str] = "right"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head."""
        return (Head("lm"),)

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """Longest source and target."""
        return self.config.max_source_length, self.config.max_target_length

    def encode(self, record: Record, codec: Codec) -> Example:
        """A source segment and the target segment that reads it, or continues it."""
        assert isinstance(record, SourceTarget)
        for name, text in (("source", record.source), ("target", record.target)):
            if not text.strip():
                raise DataError(
                    f"the {name} is empty",
                    str(record.origin),
                    "fill it in or take the row out",
                    "empty",
                )
        if not isinstance(codec, Paired):
            return self._chain(record, codec)
        streams = codec.streams(record.source, record.target)
        read = Segment(_ints(streams.read), stream="source")
        fed = Segment(_ints(streams.fed), source=0)
        first = len(streams.read)
        return _example((read, fed), first, streams.written, record.origin)

    def _chain(self, record: SourceTarget, codec: Codec) -> Example:
        """A decoder's prompt, and the target that it is continued with."""
        turns = (Turn("user", record.source), Turn("assistant", record.target))
        before: list[int] = []
        written: list[int] = []
        for piece in codec.dialogue(turns):
            if piece.answer:
                written += piece.tokens
            elif not written:
                before += piece.tokens
        segments = (Segment(_ints(before)), Segment(_ints(written), parent=0))
        return _example(segments, len(before) - 1, written, record.origin)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def weights(self, batch: Batch) -> dict[str, float]:
        """Target tokens."""
        return {"nll": float(batch.targets["lm"]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the target tokens' negative log-likelihoods."""
        hidden = models.policy.hidden(batch)
        smoothing = self.config.label_smoothing
        return {"nll": models.policy.nll(batch, hidden, smoothing=smoothing)}


def _example(
    segments: tuple[Segment, ...], first: int, written: Sequence[int], origin: Origin
) -> Example:
    """Every token written is predicted from its own place, the first of them at ``first``."""
    table = {
        "position": np.arange(first, first + len(written), dtype=np.int64),
        "token": _ints(written),
        "weight": np.ones(len(written), dtype=np.float32),
    }
    return Example(segments, {"lm": table}, origin)


def _ints(tokens: Sequence[int]) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)
