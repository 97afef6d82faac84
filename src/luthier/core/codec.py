"""The seam between text and tokens: what a codec promises.

The other seams are in :mod:`luthier.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from luthier.core.records import Segment, Turn


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens of a rendered conversation.

    Attributes:
        tokens: token ids, in context.
        turn: index of the turn that the text belongs to, ``None`` for what the template adds
            between turns.
        answer: whether the run is an assistant's text and its end-of-turn token, which is what
            can be learned.
    """

    tokens: tuple[int, ...]
    turn: int | None
    answer: bool


@dataclass(frozen=True, slots=True)
class Streams:
    """A source and its target as an encoder-decoder takes them.

    Attributes:
        read: what the encoder reads.
        fed: what the decoder is fed, the target shifted right behind its start token.
        written: what it must write at each of these places, its end token last.
    """

    read: tuple[int, ...]
    fed: tuple[int, ...]
    written: tuple[int, ...]


class Codec(Protocol):
    """Text to tokens and back: the one path, for training and for generation alike."""

    @property
    def max_length(self) -> int:
        """Tokens the model can attend to (its context), or the recipe's smaller bound."""
        ...

    def document(self, text: str) -> list[int]:
        """A raw document, between the separators that the model was pretrained with."""
        ...

    def dialogue(self, turns: Sequence[Turn]) -> list[Piece]:
        """A conversation in the model's template, as runs whose tokens concatenate to it."""
        ...

    def last_turn(self, turns: Sequence[Turn]) -> list[Piece]:
        """The same, only the last assistant turn an answer: for templates that rewrite turns."""
        ...

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Turns up to where the assistant begins to speak."""
        ...

    def streams(self, source: str, target: str) -> Streams | None:
        """A source and its target where the model has an encoder; ``None`` where it has none."""
        ...

    def texts(self, text: str, pair: str | None = None) -> tuple[list[int], list[int] | None]:
        """A text or a pair as an encoder reads it: token ids, and token types where it has any."""
        ...

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Tokens to text; special tokens are left out unless asked for."""
        ...


def text_segment(codec: Codec, text: str, pair: str | None = None) -> Segment:
    """A text, or a pair of texts, as the one segment that a classifier reads."""
    tokens, types = codec.texts(text, pair)
    token_types = None if types is None else np.array(types, dtype=np.int64)
    return Segment(np.array(tokens, dtype=np.int64), token_types=token_types)
