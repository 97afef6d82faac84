"""Conversations as lists of messages: role/content (OpenAI) or from/value (ShareGPT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError, nearest
from luthier.core.records import Conversation, Origin, Record, Row, Turn
from luthier.data.formats._calls import (
    TOOLS,
    answered_call,
    calls_of,
    thought,
    tools_turns,
    written_call,
)
from luthier.data.formats._fields import (
    CONVERSATIONS,
    checked,
    need,
    pick,
    quoted,
    refuse_surrogates,
    said,
    said_system,
    system_turns,
)

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


class Config(KindConfig):
    """Settings of messages: none."""

    kind: str = "messages"


class Format:
    """Rows with a list of messages to a :class:`Conversation`.

    Parts of type ``text`` are joined. A column ``system`` becomes a first turn where the list has
    none; what a column ``tools`` declares becomes the very first one. Calls of tools and what was
    thought (``reasoning_content``) stay with their turn, for the template to write.
    """

    records: ClassVar[tuple[type[Record], ...]] = (Conversation,)
    fields: ClassVar[tuple[str, ...]] = ("messages", "system", "tools")

    def __init__(self, config: Config) -> None:
        self.config = config

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """The column that holds a list of messages."""
        column = pick(fields, CONVERSATIONS)
        if column is None:
            return None
        value = fields[column]
        if value is not None and not isinstance(value, list | tuple):
            return None
        if value and not (isinstance(value[0], Mapping) and _keys(value[0])):
            return None
        return f"messages='{column}'{said_system(fields)}{_said_tools(fields)}"

    def read(self, row: Row) -> Record:
        """The conversation of a row."""
        column = need(row, CONVERSATIONS, "messages")
        value = row.fields[column]
        if not isinstance(value, list | tuple):
            found = "null" if value is None else said(value)
            raise DataError(
                f"'{column}' is {found}, not a list of messages",
                str(row.origin),
                'write [{"role": "user", "content": "…"}, …]',
                "type",
            )
        turns = [turn(item, f"{column}[{i}]", row.origin) for i, item in enumerate(value)]
        if not any(each.role == "assistant" for each in turns):
            raise DataError(
                f"no assistant turn among the {len(turns)} messages of '{column}'",
                str(row.origin),
                "there is nothing to learn from; take the row out",
                "no-assistant",
            )
        if not any(each.role == "system" for each in turns):
            turns = [*system_turns(row), *turns]
        return Conversation(row.origin, (*tools_turns(row), *turns))


def _said_tools(fields: Mapping[str, Any]) -> str:
    """The column that declares tools as formats say it, where a row declares some."""
    there = [name for name in TOOLS if fields.get(name)]
    return f", tools='{there[0]}'" if there else ""


def _keys(message: Mapping[str, Any]) -> tuple[str, str] | None:
    """The names of the role and of the text in a message."""
    if "role" in message:
        return "role", "content"
    return ("from", "value") if "from" in message and "value" in message else None


def turn(message: Any, place: str, origin: Origin) -> Turn:
    """One message as a turn.

    Raises:
        DataError: no message, an unknown role, content that is no text.
    """
    if not isinstance(message, Mapping) or (keys := _keys(message)) is None:
        found = f"has {quoted(message)}" if isinstance(message, Mapping) else f"is {said(message)}"
        raise DataError(
            f"a message has a role and a content, {place} {found}",
            str(origin),
            'write {"role": "user", "content": "…"}',
            "message",
        )
    role = role_of(message[keys[0]], place, origin)
    if message.get("weight") not in (None, 1):
        raise DataError(
            f"{place} has weight {message['weight']}",
            str(origin),
            "turns are learned whole or not at all: take the key out",
            "weight",
        )
    content = _content(message.get(keys[1]), place, origin)
    calls = calls_of(message, place, origin)
    if str(message[keys[0]]).lower() == "function_call" and not calls:
        content, calls = "", written_call(content, place, origin)
    if calls:
        content = content or ""
    elif content is None or role in ("user", "assistant"):
        checked(content, place, f"{role} turn", origin)
    assert content is not None
    if role == "tool":
        calls = answered_call(message)
    content = thought(message, place, origin) + content
    refuse_surrogates(content, place, f"{role} turn", origin)
    return Turn(role, content, calls)


def role_of(value: Any, place: str, origin: Origin) -> str:
    """A role by its usual name.

    Raises:
        DataError: a role that no one knows.
    """
    role = _ROLES.get(value.lower()) if isinstance(value, str) else None
    if role is None:
        raise DataError(
            f"{place} has the role {value!r}",
            str(origin),
            nearest(str(value).lower(), ("system", "user", "assistant", "tool")),
            "role",
        )
    return role


def _content(value: Any, place: str, origin: Origin) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        raise DataError(
            f"the content of {place} is {said(value)}, not text",
            str(origin),
            "write it as text",
            "type",
        )
    texts: list[str] = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise DataError(
                f"{place} has a part of type {kind!r}; only text can be learned",
                str(origin),
                "take the row out",
                "part",
            )
        texts.append(part["text"])
    return "".join(texts)
