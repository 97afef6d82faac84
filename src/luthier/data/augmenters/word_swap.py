"""Copies of rows in which neighbouring words change places."""

from __future__ import annotations

import random

from luthier.data.augmenters import _noise
from luthier.data.augmenters._noise import Noise, joined, words


class Config(_noise.Config):
    """How many words, and how many copies."""

    kind: str = "word_swap"


class Augmenter(Noise):
    """Pairs of neighbours, each word in one of them at most (after Wei & Zou 2019's random swap).

    Departure from arXiv 1901.11196, which swaps any two words: neighbours leave more of a text's
    order, and no swap takes back another.
    """

    def change(self, text: str, rng: random.Random) -> str:
        """The text with ``share`` of its words in each other's place, one pair at least."""
        found, gaps = words(text)
        places = [i for i in range(len(found) - 1) if found[i] != found[i + 1]]
        rng.shuffle(places)
        moved: set[int] = set()
        for place in places:
            if len(moved) >= max(2, round(self.config.share * len(found))):
                break
            if not moved & {place, place + 1}:
                found[place], found[place + 1] = found[place + 1], found[place]
                moved |= {place, place + 1}
        return joined(found, gaps)
