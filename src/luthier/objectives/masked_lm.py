"""Masked language modelling: encoders learn raw text by guessing tokens that were hidden.

Of every text ``mask_rate`` of its tokens are chosen anew each epoch; of these 80 % become the mask
token, 10 % a random one and 10 % stay (BERT: Devlin et al. 2018, arXiv 1810.04805, section 3.1;
drawn anew each epoch: Liu et al. 2019, arXiv 1907.11692). The loss is ``-sum_t log p(x_t | text)``
over the chosen tokens alone. With ``whole_words`` all tokens of a word are chosen together, as
in BERT's later models. Tokens that the tokenizer puts around a text are never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, cast

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import Head, KindConfig, Models
from luthier.core.errors import DataError, RecipeError
from luthier.core.records import Batch, Example, Ints, Record, Text

#: The table, and the head.
HEAD = "masked_lm"


class Config(KindConfig):
    """Settings of masked language modelling."""

    kind: str = "masked_lm"
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    """Share of a text's tokens that are to be guessed; at least one."""
    mask_share: float = Field(default=0.8, ge=0, le=1)
    """Of these, how many become the mask token."""
    random_share: float = Field(default=0.1, ge=0, le=1)
    """And how many a random one; the others stay as they are."""
    whole_words: bool = False
    """Choose all tokens of a word together."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Szegedy et al. 2016 (arXiv 1512.00567)."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Config:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError("mask_share and random_share are more than everything together")
        return self


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Text,)
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "token_accuracy")
    overlong: ClassVar[str] = "window"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self._mask: int | None = None
        self._plain: Ints = np.zeros(0, dtype=np.int64)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The masked language model's."""
        return (Head(HEAD),)

    def with_codec(self, codec: Codec) -> Objective:
        """Knowing the mask and the tokens to draw from.

        Raises:
            RecipeError: the tokenizer has no mask.
        """
        made = Objective(self.config)
        made._mask, made._plain = codec.mask_token, codec.plain_tokens
        if made._mask is None:
            raise RecipeError(
                "the tokenizer has no mask token: this model never learned to guess hidden tokens",
                cure="take an encoder (BERT, RoBERTa, ModernBERT …), or "
                "objective: language_modeling",
            )
        return made

    def encode(self, record: Record, codec: Codec) -> Example:
        """A document as one segment, with a row for every token that may be chosen."""
        assert isinstance(record, Text)
        aligned = codec.aligned(record.text)
        position = np.arange(aligned.start, aligned.stop)
        if not len(position):
            raise DataError("an empty document", str(record.origin), code="no-target")
        owner = aligned.owner[position]
        table = {
            "position": position,
            "token": aligned.segment.tokens[position],
            # What is of no word (a line's end) is chosen by itself.
            "word": np.where(owner < 0, -1 - position, owner),
            "weight": np.ones(len(position), dtype=np.float32),
        }
        return Example((aligned.segment,), {HEAD: table}, record.origin)

    def cuts(self, example: Example) -> Ints:
        """Before every word."""
        table = example.targets[HEAD]
        return np.asarray(table["position"][1:][np.diff(table["word"]) != 0], dtype=np.int64)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """The same texts with tokens chosen, and hidden."""
        return [self._masked(example, rng) for example in examples]

    def weights(self, batch: Batch) -> dict[str, float]:
        """Chosen tokens."""
        return {"nll": float(batch.targets[HEAD]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the chosen tokens' negative log-likelihoods."""
        hidden = models.policy.hidden(batch)
        smoothing = self.config.label_smoothing
        return {"nll": models.policy.nll(batch, hidden, smoothing=smoothing)}

    def _masked(self, example: Example, rng: np.random.Generator) -> Example:
        assert self._mask is not None, "with_codec was not called"
        table = example.targets[HEAD]
        count = len(table["position"])
        wanted = max(1, round(self.config.mask_rate * count))
        if self.config.whole_words:
            rows = _words(cast("Ints", table["word"]), wanted, rng)
        else:
            rows = np.sort(rng.choice(count, wanted, replace=False))
        chosen = {name: column[rows] for name, column in table.items()}
        draw = rng.random(len(rows))
        other = rng.choice(self._plain, len(rows))
        masked, random = self.config.mask_share, self.config.random_share
        hidden = np.where(draw < masked + random, other, chosen["token"])
        tokens = example.segments[0].tokens.copy()
        tokens[chosen["position"]] = np.where(draw < masked, self._mask, hidden)
        segment = replace(example.segments[0], tokens=tokens)
        return replace(example, segments=(segment,), targets={HEAD: chosen})


def _words(word: Ints, wanted: int, rng: np.random.Generator) -> Ints:
    """Rows of words drawn at random, as many as fit, one word at least."""
    _, number, sizes = np.unique(word, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    chosen = np.zeros(len(sizes), dtype=bool)
    room = wanted
    for each in order:
        if sizes[each] <= room:
            chosen[each] = True
            room -= int(sizes[each])
    if not chosen.any():
        chosen[order[0]] = True
    return np.flatnonzero(chosen[number])
