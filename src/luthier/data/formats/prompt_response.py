"""A prompt and its response: prompt/response, question/answer, input/output and the like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Conversation, Record, Row, Turn
from luthier.data.formats._fields import (
    PROMPTS,
    RESPONSES,
    need,
    nested,
    one_text,
    pick,
    said_system,
    system_turns,
)

#: Names that belong together: they settle a row in which several could be the prompt.
_PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("query", "answer"),
    ("query", "response"),
    ("problem", "solution"),
    ("user", "assistant"),
    ("instruction", "response"),
    ("instruction", "output"),
    ("input", "output"),
)


class Config(KindConfig):
    """Settings of prompt and response: none."""

    kind: str = "prompt_response"


class Format:
    """Rows with a prompt and a response to a :class:`Conversation` of two turns.

    A column ``system``, where it is filled in, becomes a first turn. Where this format is named, a
    prompt that is a list is its sentences, and of a list of responses the first is taken.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Conversation,)
    fields: ClassVar[tuple[str, ...]] = ("prompt", "response", "system")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the prompt and of the response."""
        pair = _pair(fields)
        if pair is None or nested(fields[pair[0]]) or nested(fields[pair[1]]):
            return None
        return f"prompt='{pair[0]}', response='{pair[1]}'{said_system(fields)}"

    def read(self, row: Row) -> Record:
        """The conversation of a row."""
        pair = _pair(row.fields)
        if pair is None and "instruction" in row.fields and "input" in row.fields:
            raise DataError(
                "the row has an instruction and an input, which is more than a prompt",
                str(row.origin),
                "say `format: instruction`",
                "ambiguous",
            )
        if pair is None:
            pair = need(row, PROMPTS, "prompt"), need(row, RESPONSES, "response")
        turns = [
            Turn("user", one_text(row, pair[0], "prompt", several=False)),
            Turn("assistant", one_text(row, pair[1], "response", several=True)),
        ]
        return Conversation(row.origin, (*system_turns(row), *turns))


def _pair(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    prompt, response = pick(fields, PROMPTS), pick(fields, RESPONSES)
    if prompt is not None and response is not None:
        return prompt, response
    found = [pair for pair in _PAIRS if pair[0] in fields and pair[1] in fields]
    return found[0] if len(found) == 1 else None
