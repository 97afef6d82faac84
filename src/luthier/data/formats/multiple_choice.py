"""A question, its choices, and which one is right: a number from 0, or a letter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import MultipleChoice, Record, Row
from luthier.data.formats._fields import checked, headless, need, pick, text

_QUESTIONS = ("question", "prompt", "query")
_CHOICES = ("choices", "options")
_ANSWERS = ("answer", "answerKey", "answer_index", "label")
_NUMBERED = re.compile(r"(?:choice|option)_?(\d+)")


class Config(KindConfig):
    """Settings of multiple choice: none."""

    kind: str = "multiple_choice"


class Format:
    """Rows with a question and its choices to :class:`MultipleChoice`.

    The choices are a list, an object of texts and labels (ARC), columns ``choice0``, ``choice1``
    … or ``A``, ``B`` …, or the cells between the first and the last of a row without names (MMLU
    as published: ``data.csv:headless``). The answer is a number that counts from 0, or a letter.
    """

    records: ClassVar[tuple[type[Record], ...]] = (MultipleChoice,)
    fields: ClassVar[tuple[str, ...]] = ("question", "choices", "answer")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the question, of the choices and of the answer."""
        cells = headless(fields)
        if cells:
            last = fields[cells[-1]]
            known = len(cells) > 3 and isinstance(last, str) and last in ascii_uppercase and last
            named = ", ".join(f"choice='{name}'" for name in cells[1:-1])
            return f"question='{cells[0]}', {named}, answer='{cells[-1]}'" if known else None
        question, answer = pick(fields, _QUESTIONS), pick(fields, _ANSWERS)
        choices = _columns(fields)
        if question is None or answer is None or not choices:
            return None
        if choices[0] in _CHOICES and not isinstance(fields[choices[0]], list | tuple | Mapping):
            return None
        named = ", ".join(f"choice='{name}'" for name in choices)
        named = f"choices='{choices[0]}'" if choices[0] in _CHOICES else named
        return f"question='{question}', {named}, answer='{answer}'"

    def read(self, row: Row) -> Record:
        """The question, the choices and the right one of a row."""
        cells = headless(row.fields)
        if len(cells) > 3:
            question, columns, answer = cells[0], cells[1:-1], cells[-1]
        else:
            question = need(row, _QUESTIONS, "question")
            columns = _columns(row.fields) or [need(row, _CHOICES, "choices")]
            answer = need(row, _ANSWERS, "answer")
        choices, letters = _choices(row, columns)
        right = _index(row.fields[answer], letters, f"'{answer}'", row)
        return MultipleChoice(row.origin, text(row, question, "question"), choices, right)


def _columns(fields: Mapping[str, Any]) -> list[str]:
    """The column of all choices, or those of one each, in order."""
    if (whole := pick(fields, _CHOICES)) is not None:
        return [whole]
    numbered = [(int(match[1]), name) for name in fields if (match := _NUMBERED.fullmatch(name))]
    if len(numbered) > 1:
        return [name for _, name in sorted(numbered)]
    letters = [letter for letter in ascii_uppercase if letter in fields]
    return letters if len(letters) > 1 else []


def _choices(row: Row, columns: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The choices' texts, and the letters by which an answer may call them."""
    listed: Any = [row.fields[name] for name in columns]
    letters: Any = list(ascii_uppercase)
    if columns[0] in _CHOICES:
        listed = listed[0]
        if isinstance(listed, Mapping):
            letters, listed = listed.get("label"), listed.get("text")
    lists = all(isinstance(each, list | tuple) for each in (listed, letters))
    if not lists or not 2 <= len(listed) <= len(letters):
        raise DataError(
            f"'{columns[0]}' holds no list of two choices or more",
            str(row.origin),
            'write ["red", "blue"]',
            "choices",
        )
    place = columns[0] if len(columns) == 1 else "the choices"
    texts = [
        checked(_plain(item), f"{place}[{i}]", "choice", row.origin)
        for i, item in enumerate(listed)
    ]
    return tuple(texts), [str(each) for each in letters[: len(texts)]]


def _plain(item: Any) -> Any:
    """A choice that is a number is its digits."""
    number = isinstance(item, int | float) and not isinstance(item, bool)
    return str(item) if number else item


def _index(value: Any, letters: list[str], place: str, row: Row) -> int:
    """Which choice is right."""
    said = value.strip() if isinstance(value, str) else value
    index: int | None = None
    if isinstance(said, str) and said in letters:
        index = letters.index(said)
    elif isinstance(said, str) and said.isdecimal():
        index = int(said)
    elif isinstance(said, int) and not isinstance(said, bool):
        index = said
    if index is None or not 0 <= index < len(letters):
        raise DataError(
            f"the answer in {place} is {value!r}, none of the {len(letters)} choices",
            str(row.origin),
            f"a number from 0 to {len(letters) - 1}, or {letters[0]} to {letters[-1]}",
            "null" if value is None else "answer",
        )
    return index
