"""Prompts alone, to sample answers for; whatever else a row says goes to the rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Prompt, Record, Row
from luthier.data.formats._fields import PROMPTS, SYSTEMS, need, pick
from luthier.data.formats._turns import prompt


class Config(KindConfig):
    """Settings of prompts: none."""

    kind: str = "prompts"


class Format:
    """Rows with a prompt to :class:`Prompt`.

    Every other column is kept under its own name for the rewards: a right ``answer``, a ``schema``,
    anything that a function of your own asks for. Recognised where a row has nothing but a prompt.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Prompt,)
    fields: ClassVar[tuple[str, ...]] = ("prompt", "system")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The prompt's column, where there is none beside it but a system text."""
        column = pick(fields, PROMPTS)
        if column is None or set(fields) - {column, *SYSTEMS}:
            return None
        return f"prompt='{column}'"

    def read(self, row: Row) -> Record:
        """The prompt, and what else the row says."""
        column = need(row, PROMPTS, "prompt")
        rest = {
            name: value
            for name, value in row.fields.items()
            if name != column and name not in SYSTEMS and value is not None
        }
        return Prompt(row.origin, prompt(row), rest)
