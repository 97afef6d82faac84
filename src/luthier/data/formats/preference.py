"""Preference pairs: chosen and rejected, as texts, messages, or transcripts that begin alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Preference, Record, Row, Turn
from luthier.data.formats._fields import PROMPTS, need, pick
from luthier.data.formats._turns import is_transcript, prompt, transcript, turns


class Config(KindConfig):
    """Settings of preference pairs: none."""

    kind: str = "preference"


class Format:
    """Rows with an answer preferred to another to :class:`Preference`.

    Without a column for the prompt, it is what both answers begin with, in whole turns: message
    lists, or transcripts as in hh-rlhf (``Human: … Assistant: …`` after blank lines).
    """

    records: ClassVar[tuple[type[Record], ...]] = (Preference,)
    fields: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected", "margin", "system")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of both answers, and of the prompt where there is one."""
        if "chosen" not in fields or "rejected" not in fields:
            return None
        both = fields["chosen"], fields["rejected"]
        asked = pick(fields, PROMPTS)
        listed = all(isinstance(each, list | tuple) for each in both)
        written = all(isinstance(each, str) for each in both)
        if not listed and not (written and (asked or all(map(is_transcript, both)))):
            return None
        if asked:
            return f"prompt='{asked}', chosen='chosen', rejected='rejected'"
        return "chosen='chosen', rejected='rejected'; the prompt is what both begin with"

    def read(self, row: Row) -> Record:
        """The prompt and both answers of a row."""
        columns = need(row, ("chosen",), "answer chosen"), need(row, ("rejected",), "other answer")
        asked = prompt(row) if any(name in row.fields for name in PROMPTS) else ()
        chosen, rejected = (self._answer(row, column, asked) for column in columns)
        if chosen == rejected:
            raise DataError(
                "chosen and rejected are equal",
                str(row.origin),
                "nothing is preferred here; take the row out",
                "equal",
            )
        if not asked:
            asked, chosen, rejected = _divided(chosen, rejected)
        _check(asked, {"chosen": chosen, "rejected": rejected}, row)
        return Preference(row.origin, asked, chosen, rejected, _margin(row))

    def _answer(self, row: Row, column: str, asked: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """An answer's turns, without the prompt where it repeats it."""
        value = row.fields[column]
        if is_transcript(value):
            said = transcript(value)
        elif isinstance(value, str) and not asked:
            raise DataError(
                f"no column for the prompt, and '{column}' is no transcript that begins with it",
                str(row.origin),
                "name the prompt's column: columns: {prompt: its_name}",
                "missing",
            )
        else:
            said = turns(value, "assistant", f"'{column}'", "answer", row.origin)
        return said[len(asked) :] if asked and said[: len(asked)] == asked else said


def _divided(
    chosen: tuple[Turn, ...], rejected: tuple[Turn, ...]
) -> tuple[tuple[Turn, ...], tuple[Turn, ...], tuple[Turn, ...]]:
    """What both begin with, and how each goes on; at least one turn is left of either."""
    shared = 0
    for ours, theirs in zip(chosen[:-1], rejected[:-1], strict=False):
        if ours != theirs:
            break
        shared += 1
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _check(asked: tuple[Turn, ...], answers: Mapping[str, tuple[Turn, ...]], row: Row) -> None:
    """Both answers are the assistant's, with something in them, to one prompt."""
    place = str(row.origin)
    for name, answer in answers.items():
        if not answer or any(not turn.content.strip() for turn in answer):
            cure = "fill it in or take the row out"
            raise DataError(f"the answer in '{name}' is empty", place, cure, "empty")
        if not asked or answer[0].role != "assistant":
            raise DataError(
                f"the prompts of chosen and rejected differ: '{name}' goes on with "
                f"{answer[0].content[:60]!r} of the {answer[0].role}",
                place,
                "both must answer the same prompt; take the row out",
                "prompt",
            )
        if answer[-1].role != "assistant":
            cure = "an answer is the assistant's; take the row out"
            raise DataError(f"'{name}' ends with the {answer[-1].role}", place, cure, "role")


def _margin(row: Row) -> float | None:
    value = row.fields.get("margin")
    if value is None or value == "":
        return None
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"the margin {value!r} is no number", str(row.origin), "give a number, or none", "type"
        )
    return number
