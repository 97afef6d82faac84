"""Supervised fine-tuning: learn the assistant's turns of conversations.

The loss is the negative log-likelihood of the answer's tokens given everything before them,
``-sum_t w_t log p(x_t | x_<t)``, over the tokens that ``train_on`` picks, divided by their number
over the whole step (never a mean of means).

A conversation that branches is learned as the tree that it is: what its paths share is computed
once and counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec, Piece
from luthier.core.contracts import Head, KindConfig, Models
from luthier.core.errors import DataError
from luthier.core.records import (
    Batch,
    Conversation,
    ConversationTree,
    Example,
    Origin,
    Record,
    Turn,
    causal_example,
)
from luthier.core.trees import Run, paths, tree_example


class Config(KindConfig):
    """Settings of supervised fine-tuning."""

    kind: str = "sft"
    train_on: Literal["assistant", "last_turn", "all"] = "assistant"
    """Every assistant turn, the last one only (of each path), or the whole conversation."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Szegedy et al. 2016 (arXiv 1512.00567)."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Conversation, ConversationTree)
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "token_accuracy", "rouge", "bleu")
    overlong: ClassVar[str] = "refuse"
    needs_reference: ClassVar[bool] = False
    independent_leaves: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head."""
        return (Head("lm"),)

    def look_ahead(self, records: Sequence[Record], codec: Codec) -> None:
        """Conversations that :meth:`encode` is about to be given."""
        if self.config.train_on != "last_turn":
            codec.ahead(r.turns for r in records if isinstance(r, Conversation))

    def encode(self, record: Record, codec: Codec) -> Example:
        """A conversation as one segment, a tree as a tree; targets are the turns learned."""
        if isinstance(record, ConversationTree):
            _refuse_silence([node.turn for node in record.nodes], record.origin)
            example = tree_example(self._paths(record, codec), record.origin)
        else:
            assert isinstance(record, Conversation)
            _refuse_silence(record.turns, record.origin)
            pieces = self._pieces(record.turns, codec)
            runs = [(piece.tokens, self._learned(piece)) for piece in pieces]
            example = causal_example(runs, record.origin)
        if not len(example.targets["lm"]["token"]):
            raise DataError(
                "nothing to learn: no assistant turn with text",
                str(record.origin),
                "give the row an answer, or set objective.train_on: all",
                code="no-target",
            )
        return example

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def weights(self, batch: Batch) -> dict[str, float]:
        """Learned tokens."""
        return {"nll": float(batch.targets["lm"]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the learned tokens' negative log-likelihoods."""
        hidden = models.policy.hidden(batch)
        smoothing = self.config.label_smoothing
        return {"nll": models.policy.nll(batch, hidden, smoothing=smoothing)}

    def _pieces(self, turns: Sequence[Turn], codec: Codec) -> list[Piece]:
        last = self.config.train_on == "last_turn"
        return codec.last_turn(turns) if last else codec.dialogue(turns)

    def _paths(self, tree: ConversationTree, codec: Codec) -> Iterator[list[Run]]:
        """Each path's runs; what stands before an answer belongs to the turn that it answers."""
        for path in paths(tree):
            turns = [tree.nodes[i].turn for i in path]
            last = self.config.train_on == "last_turn"
            if last and not any(turn.role == "assistant" for turn in turns):
                continue  # its turns teach nothing
            runs: list[Run] = []
            at = len(path)
            for piece in reversed(self._pieces(turns, codec)):
                if piece.turn is None:
                    node = ("before", path[at - 1] if at else None)
                else:
                    at = piece.turn
                    node = ("answer", path[at])
                runs.insert(0, Run(piece.tokens, self._learned(piece), node))
            yield runs

    def _learned(self, piece: Piece) -> bool:
        return piece.answer or self.config.train_on == "all"


def _refuse_silence(turns: Sequence[Turn], origin: Origin) -> None:
    if any(turn.role == "assistant" and not (turn.content or turn.calls) for turn in turns):
        raise DataError(
            "an assistant turn is empty: the model would learn to say nothing",
            str(origin),
            "fill it in or take the row out",
            code="empty",
        )
