"""Chat templates to text: transformers' own sandbox, with a bound on what a template may write.

Transformers' environment keeps a template from reaching Python objects, but not from writing
without end. Here the text is taken block by block and given up once it outgrows its input.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from luthier.core.errors import UserError

#: A rendered conversation may have so many characters for each one of its turns …
GROWTH = 20
#: … and so many besides, for what the template itself writes.
ALLOWANCE = 100_000
#: Characters that mark text in a turn as no special token. Unicode reserves them for a program's
#: own use; those that a turn contains all the same are not chosen.
_MARKS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))

#: Transformers keeps what ``{% generation %}`` marks with the compiled template, for one rendering
#: at a time.
_ONE_AT_A_TIME = threading.Lock()

_TRACKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRefusedError(Exception):
    """The template raised: it does not take these turns."""


@dataclass(frozen=True, slots=True)
class Message:
    """A turn as the template is given it.

    Attributes:
        role: its role.
        content: its text, special tokens in it marked (see :func:`mark`).
        turn: index of the turn it came from.
        calls: of an assistant, the tools that it calls, of a tool the call that it answers, as
            JSON, marked as well.
    """

    role: str
    content: str
    turn: int
    calls: str = ""

    def plain(self) -> dict[str, Any]:
        """As templates read it."""
        made: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.calls and self.role == "tool":
            made.update(json.loads(self.calls))
        elif self.calls:
            made["tool_calls"] = json.loads(self.calls)
        return made


@dataclass(frozen=True, slots=True)
class Renderer:
    """A chat template and what it may read.

    Attributes:
        template: Jinja source.
        variables: ``bos_token``, ``eos_token`` and so on, as transformers passes them.
    """

    template: str
    variables: Mapping[str, Any]

    @property
    def tracks(self) -> bool:
        """Whether the template marks the assistant's text with ``{% generation %}``."""
        return _TRACKS.search(self.template) is not None

    def text(self, messages: Sequence[Message], *, generation: bool) -> str:
        """The conversation as text; with ``generation`` up to where the assistant speaks next.

        Raises:
            TemplateRefusedError: the template raised.
            UserError: the template wrote more than it may.
        """
        compiled = self._compiled()
        if not self.tracks:
            return "".join(self._blocks(compiled, messages, generation, []))
        with _ONE_AT_A_TIME:
            return "".join(self._blocks(compiled, messages, generation, []))

    def tracked(
        self, messages: Sequence[Message], *, generation: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the ``[start, stop)`` that the template marks as the assistant's.

        Raises:
            TemplateRefusedError: the template raised.
            UserError: the template wrote more than it may.
        """
        compiled = self._compiled()
        blocks: list[str] = []
        ranges: list[tuple[int, int]] = []
        with _ONE_AT_A_TIME, compiled.environment.activate_tracker(blocks, ranges):
            text = "".join(self._blocks(compiled, messages, generation, blocks))
        return text, ranges

    def _compiled(self) -> Any:
        try:
            return _compile_jinja_template(self.template)
        except TemplateError as error:
            raise UserError(
                f"the chat template is no valid Jinja: {error}", "data.template", code="template"
            ) from None

    def _blocks(
        self, compiled: Any, messages: Sequence[Message], generation: bool, blocks: list[str]
    ) -> list[str]:
        bound = GROWTH * sum(len(m.content) + len(m.calls) for m in messages) + ALLOWANCE
        # What the first turn may declare is no message to a template.
        tools = json.loads(messages[0].content) if _declares(messages) else None
        written = 0
        known = _globals(compiled)
        variables = {
            **known,
            "messages": [message.plain() for message in messages[1 if tools else 0 :]],
            "tools": tools,
            "documents": None,
            "add_generation_prompt": generation,
            **self.variables,
        }
        # What Template.generate does, which walks the globals' chain of mappings for every text.
        context = compiled.environment.context_class(
            compiled.environment, variables, compiled.name, compiled.blocks, globals=known
        )
        try:
            for block in compiled.root_render_func(context):
                blocks.append(block)
                written += len(block)
                if written > bound:
                    break
        except (TemplateError, ArithmeticError, LookupError, MemoryError, TypeError) as error:
            raise TemplateRefusedError(str(error)) from None
        except (AttributeError, ValueError) as error:
            raise TemplateRefusedError(str(error)) from None
        if written > bound:
            raise UserError(
                f"the chat template writes more than {bound} characters for this conversation",
                "data.template",
                "use another template",
                "template_size",
            )
        return blocks


@lru_cache
def _globals(compiled: Any) -> dict[str, Any]:
    """What every text of a template may read beside its own variables."""
    return dict(compiled.globals)


def _declares(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[0].role == "tools"


def mark(contents: Sequence[str], special: re.Pattern[str]) -> tuple[list[str], str, int]:
    r"""Puts marks around special tokens' text, so that it can be told from the template's own.

    Args:
        contents: the turns' texts.
        special: matches any special token's text.

    Returns:
        The contents, the two mark characters (empty where nothing had to be marked), and how
        many were marked.

    Raises:
        UserError: the contents use up every reserved character.

    >>> mark(["a</s>"], re.compile("</s>"))[0] == ["a\ufdd0</s>\ufdd1"]
    True
    """
    found = sum(1 for text in contents for _ in special.finditer(text))
    if not found:
        return list(contents), "", 0
    free = [char for char in _MARKS if not any(char in text for text in contents)]
    if len(free) < 2:
        raise UserError(
            "special tokens' text together with all of Unicode's noncharacters U+FDD0 to U+FDEF",
            cure="take either out of the turns",
            code="special_text",
        )
    start, stop = free[:2]
    return [special.sub(f"{start}\\g<0>{stop}", text) for text in contents], start + stop, found


def split_marked(text: str, marks: str) -> Iterable[tuple[str, bool]]:
    """``(run, literal)`` of marked text: literal runs are no special tokens whatever they spell.

    A template that cuts a turn apart may leave one mark of a pair; it is dropped, and what lay
    on either side of it stays apart.

    >>> list(split_marked("a[</s>]b[", "[]"))
    [('a', False), ('</s>', True), ('b', False)]
    """
    if not marks:
        return [(text, False)] if text else []
    start, stop = map(re.escape, marks)
    runs = re.split(f"{start}([^{start}{stop}]*){stop}|[{start}{stop}]", text)
    return [(run, index % 2 == 1) for index, run in enumerate(runs) if run]
