"""What messages say of tools and of thinking, in OpenAI's shape and in ShareGPT's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from luthier.core.errors import DataError
from luthier.core.records import Origin, Row, Turn
from luthier.data.formats._fields import checked, said

#: Columns that declare tools.
TOOLS = ("tools", "functions")
#: Keys of a message that hold what was thought before it.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_CALL_CURE = 'write {"type": "function", "function": {"name": "…", "arguments": {…}}}'
_TOOL_CURE = 'write {"type": "function", "function": {"name": "…", "parameters": {…}}}'


def tools_turns(row: Row) -> list[Turn]:
    """The turn that declares a row's tools, where it declares some.

    Raises:
        DataError: they are no list of functions with names.
    """
    column = next((name for name in TOOLS if row.fields.get(name)), None)
    if column is None:
        return []
    value = _loaded(row.fields[column])
    if not isinstance(value, list | tuple):
        raise DataError(
            f"'{column}' is {said(value)}, not a list of tools",
            str(row.origin),
            "write the tools as a list of OpenAI's schemas",
            "tools",
        )
    tools = [_function(t, f"{column}[{i}]", row.origin, _TOOL_CURE) for i, t in enumerate(value)]
    return [Turn("tools", _written(tools))] if tools else []


def calls_of(message: Mapping[str, Any], place: str, origin: Origin) -> str:
    """The calls in a message as JSON, their arguments as objects; empty where there are none.

    Raises:
        DataError: a call without a name, or arguments that are no object.
    """
    calls = message.get("tool_calls")
    if not calls:
        single = message.get("function_call")
        calls = [single] if single else []
    if not isinstance(calls, list | tuple):
        raise DataError(
            f"the calls of {place} are {said(calls)}, not a list", str(origin), _CALL_CURE, "calls"
        )
    if not calls:
        return ""
    return _written(
        [_call(each, f"{place}.tool_calls[{i}]", origin) for i, each in enumerate(calls)]
    )


def written_call(content: str | None, place: str, origin: Origin) -> str:
    """The call that a ShareGPT turn of role ``function_call`` holds as text.

    Raises:
        DataError: the text is no call.
    """
    value = _loaded(content)
    calls = value if isinstance(value, list) else [value]
    return _written([_call(each, place, origin) for each in calls])


def answered_call(message: Mapping[str, Any]) -> str:
    """Which call a tool's message answers, as templates read it; empty where it does not say."""
    found = {key: message[key] for key in ("name", "tool_call_id") if message.get(key)}
    return _written({key: str(value) for key, value in found.items()}) if found else ""


def thought(message: Mapping[str, Any], place: str, origin: Origin) -> str:
    """What was thought before a message, between its marks; empty where nothing was."""
    found = next((message[key] for key in _THOUGHTS if message.get(key)), None)
    if found is None:
        return ""
    return f"<think>\n{checked(found, place, 'thinking', origin).strip()}\n</think>\n\n"


def _call(value: Any, place: str, origin: Origin) -> dict[str, Any]:
    call = _function(value, place, origin, _CALL_CURE)
    function = dict(call["function"])
    arguments = _loaded(function.get("arguments", {}))
    if not isinstance(arguments, Mapping):
        raise DataError(
            f"the arguments of {place} are {said(arguments)}, not an object",
            str(origin),
            _CALL_CURE,
            "calls",
        )
    return {**call, "function": {**function, "arguments": arguments}}


def _function(value: Any, place: str, origin: Origin, cure: str) -> dict[str, Any]:
    """A function with its name, inside ``{"type": "function", "function": …}``."""
    value = _loaded(value)
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"{place} names no function", str(origin), cure, "calls")
    around = value if "function" in value else {}
    return {**around, "type": "function", "function": dict(function)}


def _loaded(value: Any) -> Any:
    """JSON written as text, as OpenAI writes arguments, is read; anything else stays."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
