"""A text, or a pair of texts, with its label: text/label, text/category, premise/hypothesis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError
from luthier.core.records import Labelled, Origin, Record, Row
from luthier.data.formats._fields import (
    LABELS,
    headless,
    need,
    nested,
    pick,
    refuse_surrogates,
    said,
    text,
)

_TEXTS = ("text", "sentence", "content", "utterance", "document")
_PAIRS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
)


class Config(KindConfig):
    """Settings of labelled text: none."""

    kind: str = "label"


class Format:
    """Rows with a label to :class:`Labelled`.

    A whole number is a class's name (``3`` is class ``"3"``), a number with a point is a number
    to be predicted, a list is several labels, none of them if empty. A cell of a CSV file is
    always text. Rows of two cells without names are a text and its label.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Labelled,)
    fields: ClassVar[tuple[str, ...]] = ("text", "text_pair", "label")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The columns of the text, of the second text where there is one, and of the label."""
        cells, pair = headless(fields), _pair(fields)
        label = pick(fields, LABELS)
        first = pair[0] if pair else pick(fields, _TEXTS)
        if len(cells) == 2:
            first, label = cells
        if label is None or first is None or nested(fields[first]):
            return None
        if isinstance(fields[label], Mapping):
            return None
        second = f", text_pair='{pair[1]}'" if pair else ""
        return f"text='{first}'{second}, label='{label}'"

    def read(self, row: Row) -> Record:
        """The text and the label of a row."""
        pair, cells = _pair(row.fields), headless(row.fields)
        if len(cells) == 2:
            first, column = cells
        else:
            first = pair[0] if pair else need(row, _TEXTS, "text")
            column = need(row, LABELS, "label")
        return Labelled(
            row.origin,
            text(row, first, "text"),
            _label(row.fields[column], column, row.origin),
            text(row, pair[1], "second text") if pair else None,
        )


def _pair(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    found = [pair for pair in _PAIRS if pair[0] in fields and pair[1] in fields]
    return found[0] if found else None


def _label(value: Any, column: str, origin: Origin) -> str | tuple[str, ...] | float:
    if isinstance(value, list | tuple):
        return tuple(_name(item, column, origin) for item in value)
    if isinstance(value, float) and not math.isnan(value):
        if math.isinf(value):
            raise DataError(f"the label in '{column}' is not finite", str(origin), code="type")
        return value
    return _name(value, column, origin)


def _name(value: Any, column: str, origin: Origin) -> str:
    if value is None or isinstance(value, float):
        missing = value is None or math.isnan(value)
        cause = "null" if missing else "a number with a point, in a list of classes"
        raise DataError(
            f"the label in '{column}' is {cause}",
            str(origin),
            "fill it in or take the row out",
            "null" if missing else "type",
        )
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise DataError(
            f"the label in '{column}' is {said(value)}",
            str(origin),
            "a label is text, a number or a list of texts",
            "type",
        )
    if not value.strip():
        raise DataError(
            f"the label in '{column}' is empty",
            str(origin),
            "fill it in or take the row out",
            "empty",
        )
    refuse_surrogates(value, f"'{column}'", "label", origin)
    return value
