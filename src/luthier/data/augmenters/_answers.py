"""Answers of language models, without what models wrap them in."""

from __future__ import annotations

import re

_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“"}


def plain(answer: str) -> str:
    """An answer without thinking, and without quotation marks around it.

    >>> plain('<think>Short.</think> "Where is my card?"')
    'Where is my card?'
    """
    text = _THINKING.sub("", sound(answer)).strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def sound(text: str) -> str:
    """A text without halves of surrogate pairs, which no file can hold, and stripped."""
    return text.encode("utf-8", "replace").decode().strip()
