"""Conversations that branch: their paths, and paths as one example whose segments are the tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.core.records import (
    Conversation,
    ConversationTree,
    Example,
    Origin,
    Ranking,
    Segment,
)


def paths(tree: ConversationTree) -> list[tuple[int, ...]]:
    """Nodes of every path from a root to a leaf, in the order of the leaves."""
    inner = {node.parent for node in tree.nodes}
    return [_path(tree, i) for i in range(len(tree.nodes)) if i not in inner]


def best(tree: ConversationTree) -> Conversation:
    """The path that takes the best-ranked answer everywhere, up to its last assistant turn.

    Where none is ranked the first one is taken; a tree whose path has no assistant turn gives
    all of its turns.
    """
    path, below = [0], _children(tree, 0)
    while below:
        ranked = {i: rank for i in below if (rank := tree.nodes[i].rank) is not None}
        path.append(min(ranked, key=lambda i: ranked[i]) if ranked else below[0])
        below = _children(tree, path[-1])
    turns = [tree.nodes[i].turn for i in path]
    spoken = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    return Conversation(tree.origin, tuple(turns[: spoken[-1] + 1] if spoken else turns))


def rankings(tree: ConversationTree) -> list[Ranking]:
    """Every turn with two ranked answers or more of the assistant, each rank given once.

    Answers without a rank are no part of it.
    """
    found = []
    for index in range(len(tree.nodes)):
        answers = [i for i in _children(tree, index) if tree.nodes[i].turn.role == "assistant"]
        ranks = {i: rank for i in answers if (rank := tree.nodes[i].rank) is not None}
        if len(ranks) > 1 and len(set(ranks.values())) == len(ranks):
            order = sorted(ranks, key=lambda i: ranks[i])
            prompt = tuple(tree.nodes[i].turn for i in _path(tree, index))
            ranked = tuple((tree.nodes[i].turn,) for i in order)
            found.append(Ranking(tree.origin, prompt, ranked))
    return found


def _children(tree: ConversationTree, index: int) -> list[int]:
    return [i for i, node in enumerate(tree.nodes) if node.parent == index]


def _path(tree: ConversationTree, index: int) -> tuple[int, ...]:
    path = [index]
    while (parent := tree.nodes[path[-1]].parent) is not None:
        path.append(parent)
    return tuple(reversed(path))


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens on a path.

    Attributes:
        tokens: token ids, at least one.
        learned: whether they are targets.
        node: what they stand for; runs of one node after the same runs are one.
    """

    tokens: tuple[int, ...]
    learned: bool
    node: Hashable


def tree_example(runs: Iterable[Sequence[Run]], origin: Origin) -> Example:
    """Paths as one example, what they share computed once and learned once.

    Two paths share a run where everything before it is shared, and it stands for the same node
    in the same tokens; it is learned if any path learns it. A run with a single successor and
    this one are one segment, so a tree without branches is one segment.

    Args:
        runs: those of each root-to-leaf path, in order.
        origin: where the record stood.

    Returns:
        An example whose ``lm`` table has a row for every learned token but those that nothing
        precedes. A segment's first token is predicted by the last one of its parent.
    """
    tokens, parents, learned = _merged(runs)
    children = Counter(parents)
    homes: list[int] = []
    members: list[list[int]] = []
    above: list[int | None] = []
    for index, parent in enumerate(parents):
        if parent is not None and children[parent] == 1:
            homes.append(homes[parent])
            members[homes[index]].append(index)
            continue
        homes.append(len(members))
        members.append([index])
        above.append(None if parent is None else homes[parent])
    position: list[int] = []
    target: list[int] = []
    segments: list[Segment] = []
    ends: list[int] = []
    start = 0
    for inside, parent in zip(members, above, strict=True):
        ids = [token for run in inside for token in tokens[run]]
        flags = [learned[run] for run in inside for _ in tokens[run]]
        for offset, (token, flag) in enumerate(zip(ids, flags, strict=True)):
            if flag and (offset or parent is not None):
                before = start + offset if offset or parent is None else ends[parent]
                position.append(before - 1)
                target.append(token)
        segments.append(Segment(np.array(ids, dtype=np.int64), parent))
        start += len(ids)
        ends.append(start)
    table: dict[str, npt.NDArray[Any]] = {
        "position": np.array(position, dtype=np.int64),
        "token": np.array(target, dtype=np.int64),
        "weight": np.ones(len(target), dtype=np.float32),
    }
    return Example(tuple(segments), {"lm": table}, origin)


def _merged(
    runs: Iterable[Sequence[Run]],
) -> tuple[list[tuple[int, ...]], list[int | None], list[bool]]:
    """Tokens, parent and whether it is learned of every run that differs."""
    known: dict[tuple[int | None, Hashable, tuple[int, ...]], int] = {}
    parents: list[int | None] = []
    learned: list[bool] = []
    for path in runs:
        at: int | None = None
        for run in path:
            assert run.tokens, "a run without tokens"
            key = (at, run.node, run.tokens)
            if key not in known:
                known[key] = len(parents)
                parents.append(at)
                learned.append(False)
            at = known[key]
            learned[at] |= run.learned
    return [tokens for _, _, tokens in known], parents, learned
