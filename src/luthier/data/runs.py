"""A rendered conversation as runs of text: what is an answer, what is thought, what is neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from luthier.data.layout import Layout, Span

#: What an assistant thinks before it answers, as Qwen3, DeepSeek-R1 and their kin write it.
THINKING = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
_OPENING, _CLOSING = "<think>", re.compile(r".*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Run:
    """Text that is put into tokens on its own, behind what stands before it.

    Attributes:
        text: possibly empty, of an answer.
        turn: index of its turn, ``None`` for what the template adds between turns.
        answer: whether it can be learned.
        ended: whether an answer ends with its end of turn.
    """

    text: str
    turn: int | None = None
    answer: bool = False
    ended: bool = True


def runs(layout: Layout, *, apart: bool) -> tuple[list[Run], int]:
    """The runs of a conversation in order, and how many answers begin with thinking set apart.

    Args:
        layout: the rendered text, and where its answers are.
        apart: whether what an answer thinks first is no part of it.
    """
    found = list(_runs(layout, apart=apart))
    return found, sum(run.turn is not None and not run.answer for run in found)


def _runs(layout: Layout, *, apart: bool) -> Iterator[Run]:
    at = 0
    for span in layout.spans:
        if span.start > at:
            yield Run(layout.text[at : span.start])
        start = _thought(layout, span) if apart else span.start
        if start > span.start:
            yield Run(layout.text[span.start : start], span.turn)
        yield Run(layout.text[start : span.stop], span.turn, answer=True, ended=span.ended)
        at = span.stop
    if len(layout.text) > at:
        yield Run(layout.text[at:])


def _thought(layout: Layout, span: Span) -> int:
    """Where an answer's thinking ends; where it begins if there is none."""
    # Some templates open the thinking themselves, in the prompt.
    opened = layout.text[: span.start].rstrip().endswith(_OPENING)
    found = (_CLOSING if opened else THINKING).match(layout.text, span.start, span.stop)
    return found.end() if found else span.start
