"""The words of the system as frozen records: rows, records, segments, examples, batches.

Shapes, here and in every file that says no other: ``B`` examples, ``N`` tokens laid end to end,
``S`` segments, ``R`` target rows, ``V`` vocabulary, ``H`` hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from luthier.core.answers import Answer as Answer
from luthier.core.tags import Entity

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
#: A target table: equally long columns. See :class:`Example`.
Table = Mapping[str, npt.NDArray[Any]]

#: Table columns that point at a place in their own example and are shifted when examples are
#: laid end to end; every other column is carried as it is.
REFERENCES = ("position", "segment", "example")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from: the source's name and its physical line (1-based)."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Row:
    """What a source yields: named fields and where they stood."""

    fields: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``; a first turn ``tools`` declares what
            the assistant may call, as a JSON list of OpenAI's schemas.
        content: its text; an assistant's thinking stands in it, first, as ``<think>…</think>``.
        calls: of an assistant's turn, the tools that it calls, as a JSON list in OpenAI's shape
            whose arguments are objects; of a tool's turn the call that it answers, as a JSON object
            of ``name`` and ``tool_call_id``; empty where there are none.
    """

    role: str
    content: str
    calls: str = ""

    def __repr__(self) -> str:
        """Without calls where there are none: a row without any keeps its side of a split."""
        calls = f", calls={self.calls!r}" if self.calls else ""
        return f"Turn(role={self.role!r}, content={self.content!r}{calls})"


@dataclass(frozen=True, slots=True)
class Record:
    """A row understood. Subclasses say what the row means; ``origin`` says where it stood."""

    origin: Origin


@dataclass(frozen=True, slots=True)
class Text(Record):
    """Raw text, one document."""

    text: str


@dataclass(frozen=True, slots=True)
class Conversation(Record):
    """Turns in order; the assistant's are what a model may learn."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A turn in a tree of turns.

    Attributes:
        turn: what was said.
        parent: index of the node that it answers, which stands before it; ``None`` for a root.
        rank: its place among its parent's answers, the best lowest; ``None`` where none is known.
    """

    turn: Turn
    parent: int | None = None
    rank: float | None = None


@dataclass(frozen=True, slots=True)
class ConversationTree(Record):
    """A conversation that branches, parents before children; :mod:`luthier.core.trees` walks it."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Labelled(Record):
    """A text (or a pair of texts) with one label, several labels, or a number."""

    text: str
    label: str | tuple[str, ...] | float
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class Tagged(Record):
    """Words with one tag each (IOB2 once understood)."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair(Record):
    """Two texts that belong together, and texts that only look as if they did."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceTarget(Record):
    """A source text and what it is to become: translation, summary, rewriting."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Preference(Record):
    """One prompt, the answer preferred and the answer not; ``margin`` where raters gave one."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking(Record):
    """One prompt and K answers, best first."""

    prompt: tuple[Turn, ...]
    answers: tuple[tuple[Turn, ...], ...]


@dataclass(frozen=True, slots=True)
class Thumb(Record):
    """One prompt, one answer, and whether it was liked."""

    prompt: tuple[Turn, ...]
    answer: tuple[Turn, ...]
    good: bool


@dataclass(frozen=True, slots=True)
class Prompt(Record):
    """A prompt to sample answers for, with what checks them (a right answer, a schema)."""

    turns: tuple[Turn, ...]
    check: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MultipleChoice(Record):
    """A question, its choices, and the index of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens that sees all of its ancestors and itself.

    Attributes:
        tokens: ``[T]`` token ids.
        parent: index of the parent segment in the same example, or ``None`` for a root.
        source: index of the encoder segment that a target segment cross-attends to.
        stream: ``main``, or ``source`` for what an encoder-decoder's encoder reads.
        token_types: ``[T]`` token type ids where the model has them.
    """

    tokens: Ints
    parent: int | None = None
    source: int | None = None
    stream: Literal["main", "source"] = "main"
    token_types: Ints | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A record in tokens: a small tree of segments plus target tables.

    Parents come before their children. Tokens are numbered through the segments in order, so a
    ``position`` is an index into the concatenation of all segments.

    Attributes:
        segments: the tree, in order.
        targets: one table a head: ``{"lm": {"position": [R], "token": [R], "weight": [R]}}``.
            Columns ``position``, ``segment`` and ``example`` are references (see
            :data:`REFERENCES`); any further typed column may be declared by an objective
            (``reference_logprob``, ``advantage``, ``teacher_token`` of shape ``[R, K]`` …).
            Several rows may share a position: a prompt's last token predicts the first token of
            each of its children. All examples of an objective have the same tables and columns,
            with no rows where there is nothing to say. Of an encoder-decoder's example, targets
            stand on segments of stream ``main`` only.
        origin: where the record stood.
    """

    segments: tuple[Segment, ...]
    targets: Mapping[str, Table]
    origin: Origin

    @property
    def size(self) -> int:
        """Tokens of all segments together."""
        return sum(len(segment.tokens) for segment in self.segments)

    def starts(self) -> list[int]:
        """Index of each segment's first token."""
        starts, at = [], 0
        for segment in self.segments:
            starts.append(at)
            at += len(segment.tokens)
        return starts

    def ancestors(self, index: int) -> list[int]:
        """The segment's ancestors, root first, itself last."""
        path = [index]
        while (parent := self.segments[path[0]].parent) is not None:
            path.insert(0, parent)
        return path

    def depth(self) -> int:
        """Tokens on the longest path from a root to a leaf: the context the example needs."""
        ends: list[int] = []
        for segment in self.segments:
            before = ends[segment.parent] if segment.parent is not None else 0
            ends.append(before + len(segment.tokens))
        return max(ends, default=0)


@dataclass(frozen=True, slots=True)
class SegmentTable:
    """Where each segment of a packed row lies and what it sees.

    Attributes:
        starts: first token of each segment, ``S`` integers.
        lengths: tokens of each segment.
        parents: index of each segment's parent, ``-1`` for a root.
        causal: decoders see themselves causally, encoders wholly.
        sources: index of the segment of ``Batch.source`` that each segment cross-attends to, -1
            for none; empty where there is no encoder.
        plans: what attention worked out about this table, kept so that every layer shares it.
    """

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    causal: bool = True
    sources: tuple[int, ...] = ()
    plans: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def path(self, index: int) -> list[int]:
        """The segment's ancestors, root first, itself last."""
        path = [index]
        while self.parents[path[0]] >= 0:
            path.insert(0, self.parents[path[0]])
        return path


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples as one model input. Objectives see ``N`` tokens in order whatever the layout.

    Attributes:
        tokens: ``[1, N]`` (layout ``packed``) or ``[rows, T]`` (layout ``padded``).
        positions: position ids, shaped as ``tokens``; they continue from the parent segment.
        segments: where every segment lies among the ``N`` tokens.
        targets: the examples' tables end to end, as tensors, each with an ``example`` column.
        origins: one an example.
        index: ``[N]`` flat place of token n in the model's output (the identity when packed).
        attention_mask: ``[rows, T]`` for layout ``padded``, else ``None``.
        token_types: shaped as ``tokens`` where the model has them.
        size: real tokens, ``N``.
        source: what an encoder-decoder's encoder reads, without targets; the rest is the decoder's.
        step: figures of the whole step by name, where the objective has step statistics.
    """

    tokens: Any
    positions: Any
    segments: SegmentTable
    targets: Mapping[str, Mapping[str, Any]]
    origins: tuple[Origin, ...]
    index: Any
    attention_mask: Any = None
    token_types: Any = None
    size: int = 0
    source: Batch | None = None
    step: Mapping[str, Any] = field(default_factory=dict)

    @property
    def packed(self) -> bool:
        """Whether examples lie end to end in one row."""
        return self.attention_mask is None


@dataclass(frozen=True, slots=True)
class Scored:
    """What evaluation hands to metrics for one example; fields a model cannot give are ``None``.

    Attributes:
        origin: where the example stood.
        losses: ``[R]`` negative log-likelihood of each target, in nats.
        correct: ``[R]`` whether the most likely token was the target.
        bytes: UTF-8 bytes of the text that the targets spell, where they spell any.
        prompt: the prompt as text, where an answer was generated.
        answer: what the model generated.
        references: the answers that the data give.
        probabilities: ``[classes]`` of a classifier, or the number of a regression.
        label: the true class index, class indices, or number.
        rank: where the right text stood among all, from 1.
        reward: what the answer earns, of an objective with rewards.
        spans: the true entities of a tagged text, as words ``(start, stop)`` and a type.
        said_spans: those that the model marked.
        scores: ``[K]`` what the model gives each answer to one prompt, the best answer first.
        lengths: ``[K]`` tokens of each of them.
    """

    origin: Origin
    losses: Floats | None = None
    correct: npt.NDArray[np.bool_] | None = None
    bytes: int | None = None
    prompt: str | None = None
    answer: str | None = None
    references: tuple[str, ...] = ()
    probabilities: Floats | None = None
    label: int | tuple[int, ...] | float | None = None
    rank: int | None = None
    reward: float | None = None
    spans: tuple[Entity, ...] | None = None
    said_spans: tuple[Entity, ...] | None = None
    scores: npt.NDArray[np.floating[Any]] | None = None
    lengths: Ints | None = None


def causal_example(pieces: Sequence[tuple[Sequence[int], bool]], origin: Origin) -> Example:
    """One segment from runs of tokens, each learned or not: the plain causal example.

    Its ``lm`` table has a row for every learned token but the very first, which nothing precedes.
    """
    count = sum(len(run) for run, _ in pieces)
    runs = chain.from_iterable(run for run, _ in pieces)
    tokens = np.fromiter(runs, dtype=np.int64, count=count)
    learned, at = [np.empty(0, dtype=np.int64)], 0
    for run, flag in pieces:
        if flag:
            learned.append(np.arange(max(at, 1), at + len(run)))
        at += len(run)
    places = learned[-1] if len(learned) < 3 else np.concatenate(learned)
    table: dict[str, npt.NDArray[Any]] = {
        "position": places - 1,
        "token": tokens[places],
        "weight": np.ones(len(places), dtype=np.float32),
    }
    return Example((Segment(tokens),), {"lm": table}, origin)
