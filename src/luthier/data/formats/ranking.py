"""A prompt and several answers, ranked: by ranks, by scores, or written best first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Ranking, Record, Row
from luthier.data.formats._fields import PROMPTS, need, pick, said
from luthier.data.formats._turns import prompt, turns

_ANSWERS = ("answers", "responses", "completions")
_TEXTS = ("answer", "response", "text", "completion")
#: Column of all answers -> the same of one answer; the lowest rank and the highest score are best.
_RANKS = {"ranks": "rank", "scores": "score"}


class Config(KindConfig):
    """Settings of rankings: none."""

    kind: str = "ranking"


class Format:
    """Rows with several answers to one prompt to :class:`Ranking`, best first.

    An answer is a text, a list of messages, or an object with an ``answer`` and its ``rank`` or
    ``score``; ranks and scores may also stand in a column of their own. Where there are neither,
    the answers are taken as written, best first; such rows are read only where this format is
    named.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Ranking,)
    fields: ClassVar[tuple[str, ...]] = ("prompt", "answers", "ranks", "scores", "system")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the prompt and of the answers, with ranks or scores."""
        asked, answers = pick(fields, PROMPTS), pick(fields, _ANSWERS)
        if asked is None or answers is None or not isinstance(fields[answers], list | tuple):
            return None
        inside = fields[answers][0] if fields[answers] else None
        for several, one in _RANKS.items():
            if isinstance(fields.get(several), list | tuple):
                return f"prompt='{asked}', answers='{answers}', {several}='{several}'"
            if isinstance(inside, Mapping) and one in inside:
                return f"prompt='{asked}', answers='{answers}' by their {one}"
        return None

    def read(self, row: Row) -> Record:
        """The prompt and the answers of a row."""
        column = need(row, _ANSWERS, "answers")
        asked = prompt(row)
        value = row.fields[column]
        if not isinstance(value, list | tuple) or len(value) < 2:
            many = isinstance(value, list | tuple)
            found = f"{len(value)} answers" if many else "null" if value is None else said(value)
            raise DataError(
                f"'{column}' is {found}, not a list of two answers or more",
                str(row.origin),
                "write the answers as a list, best first, or with ranks",
                "type",
            )
        answers = [
            turns(_text(item), "assistant", f"{column}[{i}]", "answer", row.origin)
            for i, item in enumerate(value)
        ]
        order = _order(row, column, list(value))
        return Ranking(row.origin, asked, tuple(answers[i] for i in order))


def _text(item: Any) -> Any:
    if isinstance(item, Mapping):
        return item.get(pick(item, _TEXTS) or "")
    return item


def _order(row: Row, column: str, answers: list[Any]) -> list[int]:
    """Indices of the answers, best first."""
    for several, one in _RANKS.items():
        values = row.fields.get(several)
        if values is None and all(isinstance(item, Mapping) and one in item for item in answers):
            values = [item[one] for item in answers]
        if values is None:
            continue
        if not isinstance(values, list | tuple) or len(values) != len(answers):
            raise _fault(row, f"'{several}' does not hold one number for each of the answers")
        if not all(_number(each) for each in values):
            raise _fault(row, f"the {several} of '{column}' are not all numbers: {list(values)!r}")
        twice = [each for each in values if values.count(each) > 1]
        if twice:
            raise _fault(row, f"two answers have the {one} {twice[0]}, so neither is better", "tie")
        return sorted(range(len(values)), key=lambda i: values[i], reverse=one == "score")
    return list(range(len(answers)))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fault(row: Row, cause: str, code: str = "rank") -> DataError:
    cure = "give each answer a number of its own, or take the row out"
    return DataError(cause, str(row.origin), cure, code)
