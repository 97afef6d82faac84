"""An instruction, an input that may be empty, and an output (Alpaca's shape)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Conversation, Record, Row, Turn
from luthier.data.formats._fields import (
    need,
    nested,
    optional_text,
    pick,
    said_system,
    system_turns,
    text,
)

_INPUTS = ("input", "context")
_OUTPUTS = ("output", "response", "completion", "answer")


class Config(KindConfig):
    """Settings of instructions: none."""

    kind: str = "instruction"


class Format:
    """Rows with an instruction to a :class:`Conversation`.

    The user's turn is the instruction, and after a blank line the input where there is one. A
    column ``system``, where it is filled in, becomes a first turn.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Conversation,)
    fields: ClassVar[tuple[str, ...]] = ("instruction", "input", "output", "system")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The three columns; without an input it is a prompt and its response."""
        found = pick(fields, _INPUTS), pick(fields, _OUTPUTS)
        if "instruction" not in fields or found[0] is None or found[1] is None:
            return None
        if any(nested(fields[name]) for name in ("instruction", found[0], found[1])):
            return None
        columns = f"input='{found[0]}', output='{found[1]}'"
        return f"instruction='instruction', {columns}{said_system(fields)}"

    def read(self, row: Row) -> Record:
        """The conversation of a row."""
        user = text(row, need(row, ("instruction",), "instruction"), "instruction")
        output = text(row, need(row, _OUTPUTS, "output"), "output")
        given = pick(row.fields, _INPUTS)
        if given is not None and (more := optional_text(row, given, "input")):
            user = f"{user}\n\n{more}"
        turns = [Turn("user", user), Turn("assistant", output)]
        return Conversation(row.origin, (*system_turns(row), *turns))
