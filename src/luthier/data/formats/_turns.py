"""Prompts and answers as turns: a text, a list of messages, or a transcript with two speakers."""

from __future__ import annotations

import re
from typing import Any

from luthier.core.errors import DataError
from luthier.core.records import Origin, Row, Turn
from luthier.data.formats._fields import PROMPTS, checked, need, system_turns
from luthier.data.formats.messages import turn

_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: Any) -> bool:
    r"""Whether a text is a dialogue: ``\n\nHuman: …\n\nAssistant: …``."""
    return (
        isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value
    )


def transcript(text: str) -> tuple[Turn, ...]:
    r"""The turns of a dialogue; one that has not been said yet is empty.

    >>> [each.role for each in transcript("\n\nHuman: hi\n\nAssistant:")]
    ['user', 'assistant']
    """
    parts = _SPEAKER.split(text)
    return tuple(
        Turn(_ROLES[who], said.strip()) for who, said in zip(parts[1::2], parts[2::2], strict=True)
    )


def turns(value: Any, role: str, place: str, what: str, origin: Origin) -> tuple[Turn, ...]:
    """A text as one turn of a role, or a list of messages as theirs.

    Raises:
        DataError: neither, or nothing in it.
    """
    if not isinstance(value, list | tuple):
        return (Turn(role, checked(value, place, what, origin)),)
    if not value:
        raise DataError(
            f"the {what} in {place} is an empty list",
            str(origin),
            "fill it in or take the row out",
            "empty",
        )
    return tuple(turn(item, f"{place.strip(chr(39))}[{i}]", origin) for i, item in enumerate(value))


def prompt(row: Row) -> tuple[Turn, ...]:
    """The prompt of a row, whatever its column is called, after its system text if it has one.

    Raises:
        DataError: no such column, or nothing that could be asked.
    """
    column = need(row, PROMPTS, "prompt")
    value = row.fields[column]
    if is_transcript(value):
        asked = transcript(value)
        asked = asked if asked[-1].content else asked[:-1]
    else:
        asked = turns(value, "user", f"'{column}'", "prompt", row.origin)
    if any(each.role == "system" for each in asked):
        return asked
    return (*system_turns(row), *asked)
