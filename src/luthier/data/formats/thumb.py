"""A prompt, an answer, and whether it was liked: thumbs up and down, not in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Record, Row, Thumb
from luthier.data.formats._fields import PROMPTS, need, pick
from luthier.data.formats._turns import prompt, turns

_ANSWERS = ("completion", "response", "answer", "output")
_LABELS = ("label", "good", "thumb", "liked")
_WORDS: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False}


class Config(KindConfig):
    """Settings of thumbs up and down: none."""

    kind: str = "thumb"


class Format:
    """Rows with a prompt, an answer and ``true`` or ``false`` to :class:`Thumb`.

    ``1`` and ``0`` are read as well, but do not suffice to be recognised.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Thumb,)
    fields: ClassVar[tuple[str, ...]] = ("prompt", "completion", "label", "system")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The three columns, the last one true or false."""
        asked, answer = pick(fields, PROMPTS), pick(fields, _ANSWERS)
        label = pick(fields, _LABELS)
        if asked is None or answer is None or label is None:
            return None
        value = fields[label]
        written = isinstance(value, str) and value.lower() in ("true", "false")
        if not isinstance(value, bool) and not written:
            return None
        return f"prompt='{asked}', completion='{answer}', label='{label}'"

    def read(self, row: Row) -> Record:
        """The prompt, the answer and the thumb of a row."""
        column = need(row, _LABELS, "thumb")
        value = row.fields[column]
        good = _WORDS.get(str(value).lower()) if isinstance(value, bool | int | str) else None
        if good is None:
            raise DataError(
                f"the thumb in '{column}' is {value!r}, neither true nor false",
                str(row.origin),
                "write true or false",
                "null" if value is None else "type",
            )
        answer = need(row, _ANSWERS, "answer")
        said = turns(row.fields[answer], "assistant", f"'{answer}'", "answer", row.origin)
        return Thumb(row.origin, prompt(row), said, good)
