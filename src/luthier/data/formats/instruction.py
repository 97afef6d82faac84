"""An instruction, an input that may be empty, and an output (Alpaca's shape)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import Fault
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
    column ``system``, where it is filled in, becomes a first turn. A column ``instances`` (the
    shape of Self-Instruct) holds several inputs with outputs: each of them is a record.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Conversation,)
    fields: ClassVar[tuple[str, ...]] = ("instruction", "input", "output", "system")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The three columns; without an input it is a prompt and its response."""
        if _instances(fields) and not nested(fields["instruction"]):
            return "instruction='instruction', instances='instances'"
        found = pick(fields, _INPUTS), pick(fields, _OUTPUTS)
        if "instruction" not in fields or found[0] is None or found[1] is None:
            return None
        if any(nested(fields[name]) for name in ("instruction", found[0], found[1])):
            return None
        columns = f"input='{found[0]}', output='{found[1]}'"
        return f"instruction='instruction', {columns}{said_system(fields)}"

    def gather(self, rows: Iterable[Row]) -> Iterator[Row | Fault]:
        """Each instance of a row that has several as a row of its own."""
        for row in rows:
            if not _instances(row.fields):
                yield row
                continue
            rest = {key: value for key, value in row.fields.items() if key != "instances"}
            for instance in row.fields["instances"]:
                yield Row({**rest, **instance}, row.origin)

    def read(self, row: Row) -> Record:
        """The conversation of a row."""
        user = text(row, need(row, ("instruction",), "instruction"), "instruction")
        output = text(row, need(row, _OUTPUTS, "output"), "output")
        given = pick(row.fields, _INPUTS)
        if given is not None and (more := optional_text(row, given, "input")):
            user = f"{user}\n\n{more}"
        turns = [Turn("user", user), Turn("assistant", output)]
        return Conversation(row.origin, (*system_turns(row), *turns))


def _instances(fields: Mapping[str, Any]) -> bool:
    """Whether a row's inputs and outputs stand in a list, and in no columns of their own."""
    value = fields.get("instances")
    if "instruction" not in fields or pick(fields, _OUTPUTS) or not isinstance(value, list):
        return False
    return bool(value) and all(
        isinstance(item, Mapping) and pick(item, _OUTPUTS) is not None for item in value
    )
