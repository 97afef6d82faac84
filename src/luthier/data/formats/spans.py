"""A text and its marked spans: entities or spans with start, end and label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Origin, Record, Row, Tagged
from luthier.data.formats._fields import checked, need, nested, pick, said, text
from luthier.data.formats._spans import Span, tagged

_TEXTS = ("text", "sentence", "content", "document")
_SPANS = ("spans", "entities")
_LABELS = ("label", "type", "entity_group", "tag")


class Config(KindConfig):
    """Settings of span annotations: none."""

    kind: str = "spans"


class Format:
    """Rows with a text and its spans to :class:`Tagged`.

    A span is ``{"start": 0, "end": 4, "label": "PER"}`` or ``[0, 4, "PER"]``, in characters, the
    end one past the last. Words are what white space and punctuation part.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Tagged,)
    fields: ClassVar[tuple[str, ...]] = ("text", "spans")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the text and of the list of spans, which may be empty."""
        written, marked = pick(fields, _TEXTS), pick(fields, _SPANS)
        if written is None or marked is None or nested(fields[written]):
            return None
        value = fields[marked]
        if not isinstance(value, list | tuple) or not all(_looks(item) for item in value):
            return None
        return f"text='{written}', spans='{marked}'"

    def read(self, row: Row) -> Record:
        """The words and tags of a row."""
        written = text(row, need(row, _TEXTS, "text"), "text")
        column = need(row, _SPANS, "spans")
        value = row.fields[column]
        if not isinstance(value, list | tuple):
            found = "null" if value is None else said(value)
            raise DataError(
                f"'{column}' is {found}, not a list of spans",
                str(row.origin),
                'write [{"start": 0, "end": 4, "label": "PER"}], or [] where there are none',
                "null" if value is None else "type",
            )
        marks = [_span(item, f"{column}[{i}]", row.origin) for i, item in enumerate(value)]
        return tagged(written, marks, row.origin)


def _looks(item: Any) -> bool:
    if isinstance(item, Mapping):
        return {"start", "end"} <= item.keys() and pick(item, _LABELS) is not None
    return isinstance(item, list | tuple) and len(item) == 3 and isinstance(item[2], str)


def _span(item: Any, place: str, origin: Origin) -> Span:
    if not _looks(item):
        raise DataError(
            f"{place} is no span",
            str(origin),
            'write {"start": 0, "end": 4, "label": "PER"} or [0, 4, "PER"]',
            "span",
        )
    if isinstance(item, Mapping):
        item = item["start"], item["end"], item[pick(item, _LABELS) or ""]
    start, end, label = item
    if any(isinstance(each, bool) or not isinstance(each, int) for each in (start, end)):
        raise DataError(
            f"{place} goes from {start!r} to {end!r}, which are no whole numbers",
            str(origin),
            "give the characters' places",
            "span",
        )
    return Span(start, end, checked(label, place, "label", origin))
