"""Records too short or too long to be worth learning, dropped."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.records import Record
from luthier.data.cleaners._texts import kept
from luthier.data.contents import answers, whole


class Config(KindConfig):
    """Bounds in characters, which no tokenizer has to be known for."""

    kind: str = "length"
    least: int = Field(default=1, ge=0)
    """Of the whole record."""
    most: int | None = Field(default=None, ge=1)
    """Of the whole record."""
    least_answer: int = Field(default=0, ge=0)
    """Of each text that is learned."""


class Cleaner:
    """Lengths without the white space at the ends."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """The records within the bounds."""
        return kept(records, self._fits)

    def _fits(self, record: Record) -> bool:
        size = len(whole(record).strip())
        most = self.config.most
        short = any(len(text.strip()) < self.config.least_answer for text in answers(record))
        return size >= self.config.least and (most is None or size <= most) and not short
