"""A text in pieces, some of them entities (the shape of Snips' NLU benchmark)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Record, Row, Tagged
from luthier.data.formats._fields import checked, need, said
from luthier.data.formats._spans import Span, tagged


class Config(KindConfig):
    """Settings of texts in pieces: none."""

    kind: str = "snips"


class Format:
    """Rows with a list of pieces to :class:`Tagged`: the pieces' text, those with an entity marked.

    The words are as in :mod:`luthier.data.formats.spans`. The name of the list that holds the
    rows (the intent, in the benchmark) is no part of them.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Tagged,)
    fields: ClassVar[tuple[str, ...]] = ("data",)

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """A column of pieces, each an object with a text."""
        value = fields.get("data")
        if not isinstance(value, list | tuple) or not value:
            return None
        if not all(isinstance(piece, Mapping) and "text" in piece for piece in value):
            return None
        return "data='data'"

    def read(self, row: Row) -> Record:
        """The words and tags of a row."""
        column = need(row, ("data",), "pieces")
        value = row.fields[column]
        if not isinstance(value, list | tuple):
            found = "null" if value is None else said(value)
            raise DataError(
                f"'{column}' is {found}, not a list of pieces",
                str(row.origin),
                'write [{"text": "play "}, {"text": "jazz", "entity": "genre"}]',
                "null" if value is None else "type",
            )
        whole, marks = "", []
        for index, piece in enumerate(value):
            place = f"{column}[{index}]"
            if not isinstance(piece, Mapping) or not isinstance(piece.get("text"), str):
                raise DataError(
                    f"{place} is no piece of text",
                    str(row.origin),
                    'write {"text": "jazz", "entity": "genre"}',
                    "type",
                )
            start, whole = len(whole), whole + piece["text"]
            if piece.get("entity") is not None:
                label = checked(piece["entity"], place, "entity", row.origin)
                marks.append(Span(start, len(whole), label))
        checked(whole, f"'{column}'", "text", row.origin)
        return tagged(whole, marks, row.origin)
