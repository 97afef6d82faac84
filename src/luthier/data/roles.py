"""Which roles a chat template takes, and what becomes of turns that it does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier.core.errors import UserError
from luthier.core.records import Turn
from luthier.data.encoding import Tally
from luthier.data.rendering import Message, Renderer, TemplateRefusedError

Policy = Literal["keep", "merge", "drop"]

_WORD = "luthierprobe"


@dataclass
class Roles:
    """Turns to messages that the template takes.

    A template takes a role if it renders a short conversation with it and the turn's text is
    there: some raise, some leave the turn out without a word.

    Attributes:
        renderer: the template.
        policy: for system turns that it does not take.
        said: what was decided.
    """

    renderer: Renderer
    policy: Policy
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._speaks = self._takes("user", "assistant", "user")
        self._system = self._takes("system", "user") or not self._takes("user")
        self._later = self._system and (
            self._takes("user", "assistant", "system", "user") or not self._speaks
        )
        self._tool = self._takes("user", "assistant", "tool") or not self._speaks
        self._tools, self._calls = self._takes_tools(), self._takes_calls()
        if self._system and self.policy != "keep":
            self.said.append(
                f"data.system: {self.policy} has no effect where the template takes a system turn"
            )
        elif not self._system and self.policy != "keep":
            self.said.append(_SYSTEM[self.policy])
        if not self._tool:
            self.said.append(
                "the chat template takes no tool turns: they become user turns, 'tool: …'"
            )

    def settle(self, turns: Sequence[Turn], counts: Tally) -> list[Message]:
        """Messages for turns; ``counts`` is added to.

        Raises:
            UserError: a system turn that the template does not take, under ``keep``.
        """
        messages: list[Message] = []
        waiting: list[str] = []
        declared = bool(turns) and turns[0].role == "tools"
        if declared:
            messages += self._declared(turns[0], counts)
        for index, turn in enumerate(turns):
            if turn.role == "tools":
                assert index == 0, "tools are declared by the first turn"
                continue
            if turn.role == "system" and not self._takes_system(index - declared):
                waiting += self._refused(turn, counts)
                continue
            message = self._spoken(turn, index, counts)
            if turn.role == "tool" and not self._tool:
                counts.add("tool_as_user")
                message = Message("user", f"tool: {turn.content}", index)
                if messages and messages[-1].role == "user":
                    message = _joined(messages.pop(), message)
            elif turn.role == "user" and _is_tool_text(turns, messages):
                message = _joined(messages.pop(), message)
            if message.role == "user" and waiting:
                message = Message("user", "\n\n".join([*waiting, message.content]), index)
                waiting = []
            messages.append(message)
        if waiting:
            raise UserError(
                "a system turn that no user turn follows cannot be merged into one",
                cure="data.system: drop",
                code="system_role",
            )
        return messages

    def _declared(self, turn: Turn, counts: Tally) -> list[Message]:
        """The turn that declares tools; nothing where the template does not show them."""
        if self._tools:
            return [Message("tools", turn.content, 0)]
        counts.add("tools_unseen")
        return []

    def _spoken(self, turn: Turn, index: int, counts: Tally) -> Message:
        """A turn as it is; calls that the template does not write become text."""
        if not turn.calls or self._calls or turn.role == "tool":
            return Message(turn.role, turn.content, index, turn.calls)
        counts.add("calls_as_text")
        return Message(turn.role, with_calls(turn), index)

    def _takes_tools(self) -> bool:
        """Whether the template shows declared tools."""
        tools = Message("tools", json.dumps([_tool()]), 0)
        return self._shows([tools, Message("user", f"{_WORD}1", 1)], generation=True)

    def _takes_calls(self) -> bool:
        """Whether the template writes calls."""
        call = {"id": "call00001", "type": "function", "function": _CALLED}
        asked = Message("user", f"{_WORD}1", 0)
        calling = Message("assistant", "", 1, json.dumps([call]))
        return self._shows([asked, calling], generation=False)

    def _shows(self, messages: list[Message], *, generation: bool) -> bool:
        try:
            text = self.renderer.text(messages, generation=generation)
        except TemplateRefusedError:
            return False
        return f"{_WORD}called" in text and f"{_WORD}1" in text

    def _takes_system(self, index: int) -> bool:
        return self._system if index == 0 else self._later

    def _refused(self, turn: Turn, counts: Tally) -> list[str]:
        if self.policy == "keep":
            raise UserError(
                "the chat template takes no system turn"
                + (" after the first turn" if self._system else ""),
                "data.system",
                "data.system: merge (its text goes before the user's) or drop",
                "system_role",
            )
        counts.add("system_merged" if self.policy == "merge" else "system_dropped")
        return [turn.content] if self.policy == "merge" else []

    def _takes(self, *roles: str) -> bool:
        messages = [Message(role, f"{_WORD}{i}", i) for i, role in enumerate(roles)]
        try:
            text = self.renderer.text(messages, generation=roles[-1] != "assistant")
        except TemplateRefusedError:
            return False
        return all(message.content in text for message in messages)


_CALLED = {"name": f"{_WORD}called", "arguments": {f"{_WORD}1": f"{_WORD}2"}}


def _tool() -> dict[str, Any]:
    """A tool as OpenAI declares one."""
    parameters = {
        "type": "object",
        "properties": {"word": {"type": "string", "description": "a word"}},
        "required": ["word"],
    }
    function = {"name": f"{_WORD}called", "description": "probes", "parameters": parameters}
    return {"type": "function", "function": function}


def with_calls(turn: Turn) -> str:
    """A turn's text and, after it, its calls as JSON."""
    return "\n".join(text for text in (turn.content, turn.calls) if text)


_SYSTEM = {
    "merge": "the chat template takes no system turns: they are merged into the user turn "
    "that follows",
    "drop": "the chat template takes no system turns: they are left out and counted",
}


def _joined(first: Message, second: Message) -> Message:
    # Templates that know no tools often insist that user and assistant alternate.
    return Message("user", f"{first.content}\n\n{second.content}", second.turn)


def _is_tool_text(turns: Sequence[Turn], messages: Sequence[Message]) -> bool:
    """Whether the last message is a tool turn that became a user turn."""
    return (
        bool(messages) and messages[-1].role == "user" and turns[messages[-1].turn].role == "tool"
    )
