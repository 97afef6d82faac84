"""One text with named keys: ### Instruct:, ### Input:, ### Output:, ### End."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Conversation, Origin, Record, Row, Turn
from luthier.data.formats._fields import TEXTS, need, pick, text


class Config(KindConfig):
    """Settings of combined text: its keys, each at the beginning of a line."""

    kind: str = "combined"
    instruct: tuple[str, ...] = Field(default=("### Instruct:", "### Instruction:"), min_length=1)
    """What stands before an instruction."""
    input: tuple[str, ...] = ("### Input:",)
    """What stands before an instruction's input, which may be empty."""
    output: tuple[str, ...] = Field(default=("### Output:", "### Response:"), min_length=1)
    """What stands before the answer."""
    end: tuple[str, ...] = ("### End",)
    """What may stand behind the answer."""

    @model_validator(mode="after")
    def _told_apart(self) -> Config:
        keys = [*self.instruct, *self.input, *self.output, *self.end]
        if not all(key.strip() for key in keys) or len(set(keys)) < len(keys):
            raise ValueError("each key is some text of its own")
        return self


class Format:
    """Rows with one text to a :class:`Conversation`, by the keys in it.

    What stands before the first key becomes a system turn; instruction and input are the user's
    turn; several rounds become several turns. Recognised only where the objective does not learn
    from raw text, which such a text is as well.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Conversation,)
    fields: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(self, config: Config) -> None:
        self.config = config
        parts = ("instruct", "input", "output", "end")
        self._parts = {key: part for part in parts for key in getattr(config, part)}
        longest = sorted(self._parts, key=len, reverse=True)
        self._keys = re.compile(rf"^({'|'.join(map(re.escape, longest))})", re.MULTILINE)

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """A text with a key of an instruction and one of an output."""
        column = pick(fields, TEXTS)
        if column is None or not isinstance(fields[column], str):
            return None
        found = dict.fromkeys(self._keys.findall(fields[column]))
        if not {"instruct", "output"} <= {self._parts[key] for key in found}:
            return None
        # Said without the sign that names a column: where raw text is learned, this gives way.
        return f"the keys {', '.join(found)} in '{column}'"

    def read(self, row: Row) -> Record:
        """The conversation in a row's text."""
        written = text(row, need(row, TEXTS, "text"), "text")
        head, *rest = self._keys.split(written)
        turns = [Turn("system", head.strip())] if head.strip() else []
        said: dict[str, str] = {}
        for key, content in zip(rest[::2], rest[1::2], strict=True):
            part = self._parts[key]
            if part == "instruct" and said:
                turns += self._round(said, row.origin)
                said = {}
            if part in said or (part == "end" and content.strip()):
                raise DataError(
                    f"'{key}' stands twice in a round" if part in said else f"text behind '{key}'",
                    str(row.origin),
                    "a round is an instruction, an input that may be missing, and an output",
                    "keys",
                )
            said[part] = content.strip()
        turns += self._round(said, row.origin)
        return Conversation(row.origin, tuple(turns))

    def _round(self, said: Mapping[str, str], origin: Origin) -> list[Turn]:
        """The two turns of an instruction and its output."""
        keys = {"instruct": self.config.instruct, "output": self.config.output}
        for part, known in keys.items():
            if not said.get(part):
                raise DataError(
                    f"nothing stands behind '{known[0]}'"
                    if part in said
                    else f"the text has no '{known[0]}'",
                    str(origin),
                    f"one of {', '.join(known)}, at the beginning of a line, with text behind it",
                    "empty" if part in said else "keys",
                )
        asked = "\n\n".join(each for each in (said["instruct"], said.get("input")) if each)
        return [Turn("user", asked), Turn("assistant", said["output"])]
