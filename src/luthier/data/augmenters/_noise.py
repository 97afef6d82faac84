"""What the kinds of noise on words share: copies of rows, each changed by a seed of its own."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Augmented
from luthier.core.generators import Writer
from luthier.core.records import Record
from luthier.data.augmenters._drawn import copies, generator
from luthier.data.augmenters._reading import read, reworded

#: A character that is a word by itself: Chinese and Japanese write no spaces.
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_ALONE}]|[^\\s{_ALONE}]+")


class Config(KindConfig):
    """What every kind of noise takes."""

    share: float = Field(default=0.1, gt=0, le=1)
    """Words that are changed, one at least."""
    copies: int = Field(default=1, ge=1, le=64)
    """Changed copies of each row."""


class Noise(ABC):
    """An augmenter that changes words; numbers and labels, and what is learned, stay."""

    near: ClassVar[bool] = True
    generator: ClassVar[None] = None

    def __init__(self, config: Config) -> None:
        self.config = config

    def wanted(self, records: Sequence[Record]) -> int:
        """As many copies of each record as the recipe says."""
        return len(records) * self.config.copies

    def augment(
        self, records: Sequence[Record], count: int, seed: int, writer: Writer | None
    ) -> Augmented:
        """Copies whose words are changed; those that came out as they were are counted."""
        made: list[Record] = []
        short = 0
        kind = self.config.kind
        for record, copy in copies(records, self.config.copies, count, seed, kind):
            texts = read(record)
            rng = generator(seed, kind, copy, record.origin.line, texts)
            new = reworded(record, [self.change(text, rng) for text in texts])
            if new == record:
                short += 1
            else:
                made.append(new)
        return Augmented(made, {"too short to change": short} if short else {})

    @abstractmethod
    def change(self, text: str, rng: random.Random) -> str:
        """The text with noise; itself where it is too short for any."""


def words(text: str) -> tuple[list[str], list[str]]:
    """Words, and what stands before, between and behind them: one more.

    >>> words("so  it goes ")
    (['so', 'it', 'goes'], ['', '  ', ' ', ' '])
    """
    found, gaps, at = [], [], 0
    for match in _WORD.finditer(text):
        gaps.append(text[at : match.start()])
        found.append(match.group())
        at = match.end()
    return found, [*gaps, text[at:]]


def joined(found: Sequence[str], gaps: Sequence[str]) -> str:
    """The inverse of :func:`words`."""
    return "".join(part for pair in zip(gaps, [*found, ""], strict=True) for part in pair)
