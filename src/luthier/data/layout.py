"""Where the answers lie in a rendered conversation.

An assistant turn's answer is what follows the prompt that the template renders for the turns
before it. Its end of turn is found by rendering a probe in the turn's place: what the template
writes after the probe is what it writes after any answer, and the first special or added token in
that is the end of turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from luthier.core.errors import UserError
from luthier.data.rendering import Message, Renderer, TemplateRefusedError

_PROBE = "luthierprobe"
#: Shapes of conversations whose frames are kept.
_FRAMES = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """An answer's place in the text, its end-of-turn token included.

    Attributes:
        start: first character.
        stop: one past the last.
        ended: whether the template wrote an end-of-turn token; if not, the tokenizer's
            end-of-text token has to follow.
        turn: index of the turn.
    """

    start: int
    stop: int
    ended: bool
    turn: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A rendered conversation and the answers in it, in order."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes around an answer.

    Attributes:
        lead: between the prompt and the answer's text.
        tail: after the text.
        end: the end-of-turn token's text, empty where there is none.
        stop: characters of ``tail`` up to and with the end-of-turn token.
    """

    lead: str
    tail: str
    end: str
    stop: int


@dataclass
class Layouts:
    """Finds answers in what one template renders.

    Attributes:
        renderer: the template.
        control: matches the text of any special or added token.
    """

    renderer: Renderer
    control: re.Pattern[str]
    _frames: dict[tuple[str, ...], Frame | None] = field(default_factory=dict)

    def of(self, messages: Sequence[Message], *, generation: bool) -> Layout | None:
        """The conversation and all of its answers.

        ``None`` where the template rewrites earlier turns and has no generation markers.

        Raises:
            TemplateRefusedError: the template raised.
        """
        text = self.renderer.text(messages, generation=generation)
        spans: list[Span] = []
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            whole = index + 1 == len(messages) and not generation
            span = self._span(messages[: index + 1], text, text if whole else None)
            if span is None:
                return self._marked(messages, generation=generation)
            spans.append(span)
        return Layout(text, tuple(spans))

    def last(self, messages: Sequence[Message]) -> Layout:
        """A conversation that ends with an assistant turn, and that turn's answer alone.

        Raises:
            TemplateRefusedError: the template raised.
            UserError: the conversation does not begin with its own prompt.
        """
        text = self.renderer.text(messages, generation=False)
        span = self._span(messages, text, text)
        if span is not None:
            return Layout(text, (span,))
        layout = self._marked(messages, generation=False)
        prompt = self._prompt(messages[:-1])
        if layout is None or not layout.text.startswith(prompt):
            raise UserError(
                "the chat template writes another text before the last answer than the prompt "
                "that it gives a model to answer",
                "data.template",
                "give a template of your own, as 'Q: {prompt}\\nA:'",
                "template_prompt",
            )
        return Layout(layout.text, layout.spans[-1:])

    def probe(self) -> tuple[list[str], list[str]]:
        """End-of-turn tokens of a short conversation, and what is worth saying about it."""
        frame = self._short()
        if frame is None:
            return [], []
        said = []
        if "strftime_now" in self.renderer.template:
            said.append("the chat template writes the date of the day into every prompt")
        if not frame.end:
            said.append(
                "the chat template writes no end-of-turn token: the tokenizer's end-of-text token "
                "is learned after each answer"
            )
        if frame.lead:
            said.append(
                f"the chat template writes {frame.lead!r} between prompt and answer: it is "
                "learned with the answer"
            )
        return [frame.end] if frame.end else [], said

    def _short(self) -> Frame | None:
        messages = [Message("user", "hello", 0), Message("assistant", _PROBE, 1)]
        try:
            return self._frame(messages, self._prompt(messages[:1]))
        except TemplateRefusedError:
            return None

    def _span(
        self, messages: Sequence[Message], text: str, after: str | None = None
    ) -> Span | None:
        """The last message's answer in ``text``; ``after`` is the messages' own where known."""
        before = self._prompt(messages[:-1])
        after = self.renderer.text(messages, generation=False) if after is None else after
        if not (text.startswith(after) and after.startswith(before)):
            return None
        if messages[-1].calls:
            return self._calling(messages[-1], after, len(before))
        frame = self._frame(messages, before)
        if frame is None:
            return None
        content = len(after) - len(frame.tail)
        if content < len(before) or not after.endswith(frame.tail):
            return None
        return Span(len(before), content + frame.stop, bool(frame.end), messages[-1].turn)

    def _calling(self, message: Message, after: str, start: int) -> Span:
        """An answer that calls tools: templates write the calls after any text, in their own words.

        So no probe stands for it; the end of turn is the last special token, where only white
        space follows.
        """
        controls = list(self.control.finditer(after, start))
        if controls and not after[controls[-1].end() :].strip():
            return Span(start, controls[-1].end(), True, message.turn)
        return Span(start, max(start, len(after.rstrip())), False, message.turn)

    def _prompt(self, messages: Sequence[Message]) -> str:
        """What stands before an answer to these turns."""
        if messages:
            return self.renderer.text(messages, generation=True)
        # Few templates can prompt for an assistant that speaks first: what counts there is what
        # they write before its text.
        text = self.renderer.text([Message("assistant", _PROBE, 0)], generation=False)
        return text.partition(_PROBE)[0]

    def _frame(self, messages: Sequence[Message], before: str) -> Frame | None:
        roles = tuple(message.role for message in messages)
        if roles in self._frames:
            return self._frames[roles]
        probe = Message("assistant", _PROBE, 0)
        text = self.renderer.text([*messages[:-1], probe], generation=False)
        frame = self._framed(text, before)
        if len(self._frames) < _FRAMES:
            self._frames[roles] = frame
        return frame

    def _framed(self, text: str, before: str) -> Frame | None:
        if not text.startswith(before):
            return None
        lead, found, tail = text[len(before) :].partition(_PROBE)
        if not found:
            return None
        end = self.control.search(tail)
        return Frame(lead, tail, end.group() if end else "", end.end() if end else 0)

    def _marked(self, messages: Sequence[Message], *, generation: bool) -> Layout | None:
        """The answers by the template's ``{% generation %}`` markers.

        An answer begins where its prompt ends, if the text has that prompt at all: what is marked
        may begin before or after it.
        """
        if not self.renderer.tracks:
            return None
        text, ranges = self.renderer.tracked(messages, generation=generation)
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        if len(ranges) != len(answers):
            return None
        spans: list[Span] = []
        for index, (start, stop) in zip(answers, ranges, strict=True):
            prompt = self._prompt(messages[:index])
            if text.startswith(prompt) and len(prompt) <= stop:
                start = len(prompt)
            end, ended = self._end(text, stop)
            spans.append(Span(start, end, ended, messages[index].turn))
        return Layout(text, tuple(spans))

    def _end(self, text: str, stop: int) -> tuple[int, bool]:
        """Where the end of turn of a marked answer ends: in what is marked, or right after it."""
        frame = self._short()
        marked = text[:stop].rstrip()
        if frame is None:  # the prompt opens the answer (<think>), so no probe can stand for one
            last = [found.end() for found in self.control.finditer(marked)][-1:]
            return (len(marked), True) if last == [len(marked)] else (stop, False)
        if not frame.end:
            return stop, False
        if marked.endswith(frame.end):
            return len(marked), True
        after = len(text) - len(text[stop:].lstrip())
        if text.startswith(frame.end, after):
            return after + len(frame.end), True
        return stop, False


def rewritten() -> UserError:
    """The error for a template that changes earlier turns as a conversation grows."""
    return UserError(
        "the chat template rewrites earlier turns, so a conversation cannot be learned as a whole",
        "data.template",
        "train_on: last_turn",
        "template_rewrites",
    )
