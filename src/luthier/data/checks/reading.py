"""What readers and formats refuse: one table from their faults to codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from luthier.core.errors import Fault
from luthier.core.findings import Code, Finding
from luthier.data.checks._base import Check as Base

FILE = Code(
    "D001", "error", "a file that cannot be read", "check its name, its suffix and that it is whole"
)
MALFORMED = Code(
    "D002", "error", "malformed JSON or CSV", "mend the line, or leave it out by malformed: skip"
)
EMPTY = Code("D003", "error", "empty response or text", "fill it in or take the row out")
NO_OBJECT = Code("D004", "error", "a row that is no object", 'write it as {"text": …}')
ENCODING = Code("D005", "error", "bytes that are not UTF-8", "convert the file: iconv -t UTF-8")
COLUMN = Code("D006", "error", "missing or null column", "fill it in or take the row out")
TYPE = Code(
    "D007", "error", "a value that its format does not take", "write it as the format has it"
)
FORMAT = Code(
    "D008",
    "error",
    "no format fits the rows, or several do",
    "name `format:` and `columns:` in a recipe; `luthier list formats` shows them",
)
TAGS = Code("D010", "error", "tag sequence invalid", "an I- tag follows a B- or I- of its kind")
SPANS = Code(
    "D011", "error", "spans overlap or lie off the token grid", "mend start and end of the span"
)
SPLIT = Code("D012", "error", "the split leaves nothing", "name a file for `validation:`, or 0")
EQUAL = Code(
    "D022", "error", "chosen equals rejected", "there is nothing to prefer: take the row out"
)
PROMPTS = Code(
    "D023", "error", "a preference whose two answers follow different prompts", "one prompt a pair"
)

#: A fault's code, as readers and formats raise it -> what it is here. Whatever else a format
#: raises is a value that it does not take.
FAULTS: Mapping[str, Code] = {
    **dict.fromkeys(
        ("no-file", "file", "suffix", "unpack", "parquet", "arrow", "no-rows", "source", "stalled"),
        FILE,
    ),
    **dict.fromkeys(
        ("hub", "hub-config", "hub-missing", "hub-offline", "hub-script", "hub-split"), FILE
    ),
    **dict.fromkeys(("malformed-json", "malformed-csv", "cells", "not-an-array"), MALFORMED),
    "empty": EMPTY,
    "split": SPLIT,
    "not-an-object": NO_OBJECT,
    "encoding": ENCODING,
    **dict.fromkeys(("missing", "null", "no-assistant"), COLUMN),
    **dict.fromkeys(("columns", "unrecognised", "format", "ambiguous"), FORMAT),
    **dict.fromkeys(("tag", "tags", "tag-name"), TAGS),
    **dict.fromkeys(("span", "spans"), SPANS),
    "equal": EQUAL,
    "prompt": PROMPTS,
}


class Check(Base):
    """Faults as findings."""

    codes: ClassVar[tuple[Code, ...]] = (
        FILE,
        MALFORMED,
        EMPTY,
        NO_OBJECT,
        ENCODING,
        COLUMN,
        TYPE,
        FORMAT,
        TAGS,
        SPANS,
        SPLIT,
        EQUAL,
        PROMPTS,
    )


def finding(fault: Fault) -> Finding:
    """The finding of a fault that a reader or a format raised."""
    code = FAULTS.get(fault.code, TYPE)
    cure = "" if "\n" in fault.cure else fault.cure  # a list of formats is no line
    return code.at(fault.place, fault.message, cure)
