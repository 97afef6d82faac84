"""The texts of a record that a model reads and does not learn: what may be said otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from luthier.core.errors import DataError
from luthier.core.records import (
    Conversation,
    Labelled,
    MultipleChoice,
    Preference,
    Prompt,
    Ranking,
    Record,
    SourceTarget,
    Thumb,
    Turn,
)


def read(record: Record) -> list[str]:
    """The texts in order.

    Raises:
        DataError: a record that is learned whole.
    """
    found: list[str] = []

    def keep(text: str) -> str:
        found.append(text)
        return text

    _changed(record, keep)
    return found


def reworded(record: Record, texts: Sequence[str]) -> Record:
    """The record with these texts in place of those that :func:`read` gives."""
    left = iter(texts)
    return _changed(record, lambda _: next(left))


def _changed(record: Record, change: Callable[[str], str]) -> Record:
    match record:
        case Labelled(text=text, pair=pair):
            text = change(text)
            return replace(record, text=text, pair=None if pair is None else change(pair))
        case SourceTarget(source=source):
            return replace(record, source=change(source))
        case MultipleChoice(question=question):
            return replace(record, question=change(question))
        case Conversation(turns=turns) | Prompt(turns=turns):
            return replace(record, turns=_asked(turns, change))
        case Preference(prompt=turns) | Ranking(prompt=turns) | Thumb(prompt=turns):
            return replace(record, prompt=_asked(turns, change))
    raise DataError(
        f"data.augment: a {type(record).__name__} has no text that a model only reads: what is "
        "said otherwise would be learned",
        str(record.origin),
        "leave this step out; new_examples makes whole new rows of texts",
        "augment",
    )


def _asked(turns: Sequence[Turn], change: Callable[[str], str]) -> tuple[Turn, ...]:
    return tuple(
        replace(turn, content=change(turn.content)) if turn.role == "user" else turn
        for turn in turns
    )
