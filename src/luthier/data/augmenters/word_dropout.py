"""Copies of rows in which words are left out (EDA's random deletion)."""

from __future__ import annotations

import random

from luthier.data.augmenters import _noise
from luthier.data.augmenters._noise import Noise, joined, words


class Config(_noise.Config):
    """How many words, and how many copies."""

    kind: str = "word_dropout"


class Augmenter(Noise):
    """Each word is left out with probability ``share`` (Wei & Zou 2019, arXiv 1901.11196).

    Departures: one word at least goes and one stays, so that no copy says what its row says.
    """

    def change(self, text: str, rng: random.Random) -> str:
        """The text without some of its words, nor the space before them."""
        found, gaps = words(text)
        if len(found) < 2:
            return text
        gone = {i for i in range(len(found)) if rng.random() < self.config.share}
        gone = gone or {rng.randrange(len(found))}
        if len(gone) == len(found):
            gone.discard(rng.randrange(len(found)))
        kept = [i for i in range(len(found)) if i not in gone]
        between = [gaps[0], *(gaps[i] for i in kept[1:]), gaps[-1]]
        return joined([found[i] for i in kept], between)
