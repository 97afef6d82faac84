"""The seam between text and tokens: what a codec promises.

The other seams are in :mod:`luthier.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from luthier.core.records import Ints, Segment, Turn

#: Characters ``[start, stop)`` of a text.
Place = tuple[int, int]


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


@dataclass(frozen=True, slots=True)
class Aligned:
    """A text in tokens, each with its word.

    Attributes:
        segment: the tokens, between those that the tokenizer puts around a text.
        owner: ``[T]`` index of the word that each token is of, -1 of none: what the tokenizer
            puts around, and what belongs to no word.
        start: the first token of the text itself.
        stop: one past its last.
    """

    segment: Segment
    owner: Ints
    start: int
    stop: int


class Codec(Protocol):
    """Text to tokens and back: the one path, for training and for generation alike."""

    @property
    def max_length(self) -> int:
        """Tokens the model can attend to (its context), or the recipe's smaller bound."""
        ...

    @property
    def causal(self) -> bool:
        """Whether a token sees what stands before it alone, so that texts can share a beginning."""
        ...

    def document(self, text: str) -> list[int]:
        """A raw document, between the separators that the model was pretrained with."""
        ...

    def dialogue(self, turns: Sequence[Turn]) -> list[Piece]:
        """A conversation in the model's template, as runs whose tokens concatenate to it."""
        ...

    def ahead(self, dialogues: Iterable[Sequence[Turn]] = (), texts: Iterable[str] = ()) -> None:
        """Told what comes next, so that all of it may be put into tokens together."""
        ...

    def last_turn(self, turns: Sequence[Turn]) -> list[Piece]:
        """The same, only the last assistant turn an answer: for templates that rewrite turns."""
        ...

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Turns up to where the assistant begins to speak."""
        ...

    def texts(self, text: str, pair: str | None = None) -> tuple[list[int], list[int] | None]:
        """A text or a pair as an encoder reads it: token ids, and token types where it has any."""
        ...

    def aligned(self, text: str, places: Sequence[Place] | None = None) -> Aligned:
        """A text as :meth:`texts` gives it, and the word that each token belongs to.

        Args:
            text: what is read.
            places: where its words stand, in order; the codec's own idea of words if unset.
        """
        ...

    @property
    def mask_token(self) -> int | None:
        """The token that stands for a hidden one, where the tokenizer has such a token."""
        ...

    @property
    def plain_tokens(self) -> Ints:
        """Every token that a text can have: the vocabulary without special tokens."""
        ...

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Tokens to text; special tokens are left out unless asked for."""
        ...


@runtime_checkable
class Paired(Protocol):
    """A codec of a model that reads with an encoder and writes with a decoder."""

    def streams(self, source: str, target: str) -> Streams:
        """A source and its target, each for its side."""
        ...


def text_segment(codec: Codec, text: str, pair: str | None = None) -> Segment:
    """A text, or a pair of texts, as the one segment that a classifier reads."""
    tokens, types = codec.texts(text, pair)
    token_types = None if types is None else np.array(types, dtype=np.int64)
    return Segment(np.array(tokens, dtype=np.int64), token_types=token_types)


def joined(words: Sequence[str]) -> tuple[str, list[Place]]:
    """Words as one text, a space between any two, and where each stands in it.

    >>> joined(["New", "York"])
    ('New York', [(0, 3), (4, 8)])
    """
    places, at = [], 0
    for word in words:
        places.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), places
