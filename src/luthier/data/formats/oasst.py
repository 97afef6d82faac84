"""OpenAssistant conversations: trees as exported, or the flat table of their messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from luthier.core.contracts import KindConfig
from luthier.core.errors import DataError, Fault
from luthier.core.records import (
    Conversation,
    ConversationTree,
    Node,
    Origin,
    Ranking,
    Record,
    Row,
    Turn,
)
from luthier.core.trees import best, rankings
from luthier.data.formats._fields import checked, need
from luthier.data.formats.messages import role_of

_FLAT = ("message_id", "parent_id", "text", "role")
#: In a message, the line of its own row; in a gathered row, which of a tree's rankings it is.
_ORIGIN, _NUMBER = "\0origin", "\0ranking"
_READ: Mapping[str, tuple[type[Record], str]] = {
    "all": (ConversationTree, "trees with all their paths"),
    "best": (Conversation, "the best-ranked path of each tree"),
    "preferences": (Ranking, "the ranked answers of each turn"),
}


class Config(KindConfig):
    """Settings of OpenAssistant's conversations."""

    kind: str = "oasst"
    paths: Literal["all", "best", "preferences"] = "all"
    """The tree itself, its best-ranked path as one conversation, or every turn with ranked
    answers as a ranking."""


class Format:
    """Rows of trees or of messages to :class:`ConversationTree`.

    The rows of a message table may stand in any order; the tree's line is that of its first
    message. A message whose parent is not there is a fault, and so is every one below it.
    """

    fields: ClassVar[tuple[str, ...]] = ("prompt", *_FLAT, "rank")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def records(self) -> tuple[type[Record], ...]:
        """What ``paths`` makes of a tree."""
        return (_READ[self.config.paths][0],)

    def recognise(self, fields: Mapping[str, Any]) -> str | None:
        """A prompt with replies, or a message with its parent."""
        read_as = _READ[self.config.paths][1]
        root = fields.get("prompt")
        if isinstance(root, Mapping) and {"text", "role", "replies"} <= root.keys():
            return f"prompt='prompt'; {read_as}"
        if _is_flat(fields) and fields["role"] in ("prompter", "assistant"):
            columns = ", ".join(f"{name}='{name}'" for name in _FLAT)
            return f"{columns}; {read_as}"
        return None

    def gather(self, rows: Iterable[Row]) -> Iterator[Row | Fault]:
        """One row a tree, or one a ranking where these are asked for."""
        for row in _trees(rows):
            if isinstance(row, Fault) or self.config.paths != "preferences":
                yield row
                continue
            try:
                count = len(rankings(_tree(row)))
            except DataError:
                count = 1  # read says what is wrong
            for number in range(max(count, 1)):
                yield Row({**row.fields, _NUMBER: number}, row.origin)

    def read(self, row: Row) -> Record:
        """The tree of a row, or what ``paths`` makes of it."""
        tree = _tree(row)
        if self.config.paths == "all":
            return tree
        if self.config.paths == "preferences":
            found = rankings(tree)
            if not found:
                raise _fault("no turn has two ranked answers", row.origin, "rank")
            number: int = row.fields.get(_NUMBER, 0)
            return found[number]
        path = best(tree)
        if path.turns[-1].role != "assistant":
            raise DataError(
                "no assistant turn on the best-ranked path",
                str(row.origin),
                "there is nothing to learn from; take the tree out",
                "no-assistant",
            )
        return path


def _is_flat(fields: Mapping[str, Any]) -> bool:
    return all(name in fields for name in _FLAT)


def _trees(rows: Iterable[Row]) -> Iterator[Row | Fault]:
    """Rows of trees as they are; messages put together once all are there."""
    messages: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if not _is_flat(row.fields):
            yield row
            continue
        identity = row.fields["message_id"]
        place = str(row.origin)
        if not isinstance(identity, str) or not identity:
            yield Fault("the message has no id", place, "fill message_id in", "id")
        elif identity in messages:
            first = messages[identity][_ORIGIN]
            yield Fault(
                f"the message {identity!r} stands twice, first in line {first.line}",
                place,
                "take one out",
                "id",
            )
        else:
            messages[identity] = {**row.fields, "replies": [], _ORIGIN: row.origin}
    yield from _assembled(messages)


def _assembled(messages: Mapping[Any, dict[str, Any]]) -> Iterator[Row | Fault]:
    """Trees in the order of their roots, then the messages that belong to none."""
    roots = []
    for message in messages.values():
        parent = message["parent_id"]
        if parent is None or parent == "":
            roots.append(message)
        elif isinstance(parent, str) and parent in messages:
            messages[parent]["replies"].append(message)
    reached: set[str] = set()
    for root in roots:
        waiting = [root]
        while waiting:
            message = waiting.pop()
            reached.add(message["message_id"])
            waiting += message["replies"]
        yield Row({"prompt": root}, root[_ORIGIN])
    for identity, message in messages.items():
        if identity not in reached:
            parent = message["parent_id"]
            known = isinstance(parent, str) and parent in messages
            yield Fault(
                f"the message {identity!r} answers {parent!r}, which "
                + ("hangs on no tree itself" if known else "is not in the table"),
                str(message[_ORIGIN]),
                "put its parent in, or take it out",
                "orphan",
            )


def _tree(row: Row) -> ConversationTree:
    """The tree under a row's prompt, parents before their children.

    Raises:
        DataError: what is no message, or has no text.
    """
    column = need(row, ("prompt",), "tree")
    nodes: list[Node] = []
    waiting: list[tuple[Any, int | None, str]] = [(row.fields[column], None, column)]
    while waiting:
        message, parent, place = waiting.pop()
        nodes.append(_node(message, parent, place, row.origin))
        replies = message.get("replies") or []
        if not isinstance(replies, list | tuple):
            raise _fault(f"the replies of {place} are no list", row.origin, "type")
        index = len(nodes) - 1
        below = [(each, index, f"{place}.replies[{i}]") for i, each in enumerate(replies)]
        waiting += reversed(below)
    return ConversationTree(row.origin, tuple(nodes))


def _node(message: Any, parent: int | None, place: str, origin: Origin) -> Node:
    if not isinstance(message, Mapping):
        raise _fault(f"{place} is no message", origin, "type")
    own = message.get(_ORIGIN)
    if isinstance(own, Origin):
        origin, place = own, "'text'"
    if message.get("deleted") is True:
        raise _fault(f"the message in {place} was deleted", origin, "deleted")
    role = role_of(message.get("role"), place, origin)
    content = checked(message.get("text"), place, f"{role} turn", origin)
    rank = message.get("rank")
    if rank is None or (isinstance(rank, float) and math.isnan(rank)) or rank == "":
        return Node(Turn(role, content), parent)
    if isinstance(rank, bool) or not isinstance(rank, int | float) or not math.isfinite(rank):
        raise _fault(f"the rank {rank!r} of {place} is no number", origin, "rank")
    return Node(Turn(role, content), parent, float(rank))


def _fault(cause: str, origin: Origin, code: str) -> DataError:
    return DataError(cause, str(origin), "mend the message, or take its tree out", code)
