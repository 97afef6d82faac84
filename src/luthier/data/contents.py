"""The texts of a record: what a model is shown, and what it would learn to write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from luthier.core.records import (
    Conversation,
    ConversationTree,
    Labelled,
    MultipleChoice,
    Node,
    Pair,
    Preference,
    Prompt,
    Ranking,
    Record,
    SourceTarget,
    Tagged,
    Text,
    Thumb,
    Turn,
)

#: Roles whose turns many rows have in common.
_SHARED = ("system", "tools")
#: Fields of records that no cleaning may change.
_NO_TEXT = ("origin", "label", "tags")


def answers(record: Record | None) -> tuple[str, ...]:
    """The texts of a record that a model would learn to write or to judge, the best ones first."""
    match record:
        case Text(text=text):
            return (text,)
        case Conversation() | ConversationTree():
            spoken = (turn for turn in _turns(record) if turn.role == "assistant")
            return tuple("\n".join(t for t in (turn.content, turn.calls) if t) for turn in spoken)
        case SourceTarget(target=target):
            return (target,)
        case Pair(positive=positive, negatives=negatives):
            return (positive, *negatives)
        case Preference(chosen=chosen, rejected=rejected):
            return (_said(chosen), _said(rejected))
        case Thumb(answer=turns):
            return (_said(turns),)
        case Ranking(answers=several):
            return tuple(_said(turns) for turns in several)
    return ()


def prompt(record: Record | None) -> str:
    """The text of a record that a model is shown."""
    match record:
        case None | Text():
            return ""
        case Conversation() | ConversationTree():
            return _said([t for t in _turns(record) if t.role not in ("assistant", "tools")])
        case Labelled(text=text, pair=pair):
            return text if pair is None else f"{text}\n{pair}"
        case Tagged(words=words):
            return " ".join(words)
        case SourceTarget(source=source):
            return source
        case Pair(anchor=anchor):
            return anchor
        case Preference(prompt=turns) | Thumb(prompt=turns) | Ranking(prompt=turns):
            return _said(turns)
    return "\n".join(_texts({f.name: getattr(record, f.name) for f in fields(record)}))


def _turns(record: Conversation | ConversationTree) -> Sequence[Turn]:
    if isinstance(record, Conversation):
        return record.turns
    return [node.turn for node in record.nodes]


def whole(record: Record) -> str:
    """All of a record's text, labels left out: what makes two records the same.

    What rows often share (a system turn, declared tools) stands for itself as one word: rows that
    differ in it alone are not the same, and long ones do not make rows alike.
    """
    turns = record.turns if isinstance(record, Conversation) else ()
    shown = _shown(turns) if turns else prompt(record)
    return "\n".join(part for part in (shown, *answers(record)) if part)


def asked(record: Record) -> str:
    """The same without what is learned or chosen from; all of it where nothing is only read."""
    match record:
        case Conversation(turns=turns) | Prompt(turns=turns):
            text = _shown(turns)
        case Preference(prompt=turns) | Ranking(prompt=turns) | Thumb(prompt=turns):
            text = _shown(turns)
        case MultipleChoice(question=text):
            pass
        case _:
            text = prompt(record)
    return text or whole(record)


def _shown(turns: Sequence[Turn]) -> str:
    shared = "\n".join(turn.content for turn in turns if turn.role in _SHARED)
    own = _said([turn for turn in turns if turn.role not in (*_SHARED, "assistant")])
    word = f"shared{short_hash(shared):x}" if shared else ""
    return "\n".join(part for part in (word, own) if part)


def mapped(record: Record, change: Callable[[str], str]) -> Record:
    """A record whose texts are changed; labels, tags and what stands in calls are left.

    Words of a tagged sentence are left as well: each has its tag.
    """
    if isinstance(record, Tagged):
        return record
    values = {
        f.name: _mapped(getattr(record, f.name), change)
        for f in fields(record)
        if f.name not in _NO_TEXT
    }
    return replace(record, **values)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Turn):
        return value if value.role == "tools" else replace(value, content=change(value.content))
    if isinstance(value, Node):
        return replace(value, turn=_mapped(value.turn, change))
    if isinstance(value, tuple):
        return tuple(_mapped(each, change) for each in value)
    return value


def characters(value: Any) -> int:
    """About how many characters of text there are in a record, told quickly.

    >>> characters(Turn("user", "hello"))
    9
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, tuple):
        return sum(map(characters, value))
    return sum(characters(getattr(value, name)) for name in getattr(value, "__slots__", ()))


def short_hash(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


def _said(turns: Sequence[Turn]) -> str:
    return "\n".join(turn.content for turn in turns)


def _texts(value: Any) -> Iterable[str]:
    """Every text in a record of a kind that has no words of its own here."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Turn):
        yield value.content
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("origin", "role", "label", "labels", "tags"):
                yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif hasattr(value, "__dataclass_fields__"):
        yield from _texts({f.name: getattr(value, f.name) for f in fields(value)})
