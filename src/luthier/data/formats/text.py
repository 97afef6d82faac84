"""Raw text, one document a row: a column text, content or document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.records import Record, Row, Text
from luthier.data.formats import _fields as fields_
from luthier.data.formats._fields import CONVERSATIONS, LABELS, RESPONSES, TEXTS, need, nested, pick

#: Beside these the text is part of something else, and is taken raw only where the recipe says so.
_OTHERS = frozenset({*LABELS, *RESPONSES, *CONVERSATIONS, "target", "chosen", "rejected", "tags"})


class Config(KindConfig):
    """Settings of raw text: none."""

    kind: str = "text"


class Format:
    """Rows with a document to :class:`Text`; other columns (title, author, licence) are left."""

    records: ClassVar[tuple[type[Record], ...]] = (Text,)
    fields: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The text's column, where nothing in the row says that the text belongs to more."""
        column = pick(fields, TEXTS)
        if column is None or nested(fields[column]) or _OTHERS & fields.keys():
            return None
        return f"text='{column}'"

    def read(self, row: Row) -> Record:
        """The document of a row."""
        return Text(row.origin, fields_.text(row, need(row, TEXTS, "text"), "text"))
