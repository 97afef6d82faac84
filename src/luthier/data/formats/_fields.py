"""What formats share: the usual names of columns, and values taken with errors that teach."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from luthier.core.errors import DataError
from luthier.core.records import Origin, Row, Turn

TEXTS = ("text", "content", "document")
PROMPTS = ("prompt", "question", "instruction", "input", "query", "user", "problem")
RESPONSES = ("response", "completion", "answer", "output", "assistant", "reply", "solution")
LABELS = ("label", "labels", "category", "intent", "class")
SYSTEMS = ("system", "system_prompt", "system_message")
CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "dialogue")


def pick(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The one column that goes by one of these names.

    The first name is the format's own and wins where it is there, so that a rename in the recipe
    settles what would be ambiguous.

    Returns:
        Its name, or ``None`` where there is none, or several and not the first.
    """
    if names[0] in fields:
        return names[0]
    found = [name for name in names if name in fields]
    return found[0] if len(found) == 1 else None


def headless(fields: Mapping[str, Any]) -> list[str]:
    """The columns of a row without names of its own, in order; none where it has some."""
    names = [f"column_{i}" for i in range(1, len(fields) + 1)]
    return names if fields and fields.keys() == set(names) else []


def need(row: Row, names: Sequence[str], what: str) -> str:
    """The name of a column that must be there.

    Raises:
        DataError: none of the names, or several of them.
    """
    if (found := pick(row.fields, names)) is not None:
        return found
    several = [name for name in names if name in row.fields]
    if several:
        message = f"the columns {quoted(several)} could each be the {what}"
        cure = f"say which in the recipe: columns: {{{names[0]}: {several[0]}}}"
        raise DataError(message, str(row.origin), cure, "ambiguous")
    message = f"no column for the {what}; the row has: {quoted(row.fields)}"
    wanted = quoted(names[:4])
    cure = f"name it {wanted}, or in the recipe: columns: {{{names[0]}: its_name}}"
    raise DataError(message, str(row.origin), cure, "missing")


def text(row: Row, column: str, what: str) -> str:
    """A column's text, which must not be blank.

    Raises:
        DataError: null, no text, blank, or text that cannot be written as UTF-8.
    """
    return checked(row.fields[column], f"'{column}'", what, row.origin)


def one_text(row: Row, column: str, what: str, *, several: bool) -> str:
    """A column's text, or what its list of texts comes to.

    Args:
        row: the row.
        column: whose text is wanted.
        what: the text's part in the record.
        several: whether a list is several texts, of which the first is taken, and not one text's
            sentences, which a space joins.

    Raises:
        DataError: as :func:`text`, or an empty list.
    """
    value = row.fields[column]
    if not isinstance(value, list | tuple):
        return text(row, column, what)
    if not value:
        raise DataError(
            f"the {what} in '{column}' is an empty list",
            str(row.origin),
            "fill it in or take the row out",
            "empty",
        )
    # A blank sentence among others adds nothing; one text must say something.
    spoken = [each for each in value if not (isinstance(each, str) and not each.strip())]
    taken = value[:1] if several else spoken or value
    parts = [checked(each, f"{column}[{i}]", what, row.origin) for i, each in enumerate(taken)]
    return " ".join(parts)


def optional_text(row: Row, column: str, what: str) -> str:
    """A column's text, which may be missing, null or blank: then it is empty."""
    value = row.fields.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    return checked(value, f"'{column}'", what, row.origin)


def system_turns(row: Row) -> list[Turn]:
    """The turn that a column of system text gives, where the row has one that is filled in."""
    column = pick(row.fields, SYSTEMS)
    said_first = optional_text(row, column, "system text") if column is not None else ""
    return [Turn("system", said_first)] if said_first else []


def said_system(fields: Mapping[str, Any]) -> str:
    """The column of system text as formats say it, ``, system='…'``, or nothing."""
    column = pick(fields, SYSTEMS)
    return f", system='{column}'" if column is not None else ""


def checked(value: Any, place: str, what: str, origin: Origin) -> str:
    """A value that must be text with something in it.

    Args:
        value: the value.
        place: the column, as the message names it.
        what: what it is for: ``prompt``, ``response`` …
        origin: where the row stood.

    Raises:
        DataError: null, no text, blank, or text that cannot be written as UTF-8.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise DataError(
            f"the {what} in {place} is null", str(origin), "fill it in or take the row out", "null"
        )
    if not isinstance(value, str):
        raise DataError(
            f"the {what} in {place} is {said(value)}, not text",
            str(origin),
            'write it as text: "…" in JSON, str() in Python',
            "type",
        )
    if not value.strip():
        raise DataError(
            f"the {what} in {place} is empty",
            str(origin),
            "fill it in or take the row out",
            "empty",
        )
    refuse_surrogates(value, place, what, origin)
    return value


def refuse_surrogates(value: str, place: str, what: str, origin: Origin) -> None:
    r"""Refuses half of a character pair (``"\ud83d"``), which no tokenizer can encode.

    Raises:
        DataError: with the character's place.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the {what} in {place} holds half of a surrogate pair "
            f"(\\u{ord(value[error.start]):04x}, character {error.start + 1})",
            str(origin),
            "the text was cut inside an emoji; take the character out",
            "encoding",
        ) from None


def said(value: Any) -> str:
    """A value's kind, in words."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return f"a {type(value).__name__}"


def quoted(names: Iterable[str]) -> str:
    """Names as ``'a', 'b'``; ``none`` where there is none."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def nested(value: Any) -> bool:
    """Whether a value is a list or an object, which no plain text column holds."""
    return isinstance(value, Mapping | list | tuple)
