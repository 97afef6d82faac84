"""Which token is of which word, told by the places of the text that tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luthier.core.codec import Place
from luthier.core.records import Ints
from luthier.data.encoding import Encoder


def align(encoder: Encoder, text: str, places: Sequence[Place]) -> tuple[list[int], Ints]:
    """Tokens of a text in which nothing is special, and the word of each.

    A token is of the first word that it shares a character with, and of none (-1) where it stands
    for white space only. Byte-level tokens that divide a letter all stand for the whole of it. A
    word without a token (the tokenizer throws it away, or another word's token covers it) is
    simply not there.

    Args:
        encoder: the tokenizer.
        text: what is read.
        places: the words' characters, in order and apart.
    """
    if encoder.special.search(text):
        return _one_by_one(encoder, text, places)
    tokens, spans = encoder.placed(text)
    word_of = np.full(len(text) + 1, -1, dtype=np.int64)
    for index, (start, stop) in enumerate(places):
        word_of[start:stop] = index
    owner = np.full(len(tokens), -1, dtype=np.int64)
    for number, (start, stop) in enumerate(spans):
        inside = word_of[start:stop]
        inside = inside[inside >= 0]
        if len(inside):
            owner[number] = inside[0]
    return tokens, owner


def _one_by_one(encoder: Encoder, text: str, places: Sequence[Place]) -> tuple[list[int], Ints]:
    """The same where a text spells a special token, which is tokenised apart, without places.

    What stands before a word is tokenised with it, as in the text.
    """
    tokens: list[int] = []
    owner: list[int] = []
    at = 0
    for index, (_, stop) in enumerate([*places, (len(text), len(text))]):
        made = encoder.behind(text[at:stop], tokens)
        tokens += made
        owner += [index if index < len(places) else -1] * len(made)
        at = stop
    return tokens, np.array(owner, dtype=np.int64)
