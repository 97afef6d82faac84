"""Lines that a great many records repeat (headers, footers, notices), taken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.records import Record
from luthier.data.cleaners._texts import changed
from luthier.data.contents import mapped


class Config(KindConfig):
    """What counts as repeated."""

    kind: str = "boilerplate"
    share: float = Field(default=0.2, gt=0, le=1)
    """Of the records that have the line."""
    least: int = Field(default=20, ge=1)
    """Characters of a line; shorter ones (a bullet, a name) are left."""


class Cleaner:
    """Only lines of texts that have several: a prompt that all rows share is no boilerplate."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """Every text without its repeated lines."""
        counts: Counter[str] = Counter()
        for record in records:
            lines: set[str] = set()

            def noted(text: str, lines: set[str] = lines) -> str:
                lines.update(self._lines(text))
                return text

            mapped(record, noted)
            counts.update(lines)
        bound = max(2.0, self.config.share * len(records))
        repeated = {line for line, count in counts.items() if count >= bound}
        if not repeated:
            return Cleaned(records, 0, 0)

        def without(text: str) -> str:
            if not repeated.intersection(self._lines(text)):
                return text
            left = [line for line in text.split("\n") if line.strip() not in repeated]
            return "\n".join(left).strip("\n")

        return changed(records, without)

    def _lines(self, text: str) -> list[str]:
        lines = [line.strip() for line in text.split("\n")]
        if len(lines) < 2:
            return []
        return [line for line in lines if len(line) >= self.config.least]
