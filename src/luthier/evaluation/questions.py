"""What held-out rows ask: prompts for both models, and the answers that the data give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core.records import (
    Conversation,
    ConversationTree,
    Example,
    Labelled,
    Origin,
    Preference,
    Prompt,
    Ranking,
    Record,
    SourceTarget,
    Text,
    Thumb,
    Turn,
)
from luthier.core.trees import best

#: Of raw text, how much is shown as a prompt, in tokens.
_OPENING = 48


@dataclass(frozen=True)
class Question:
    """One prompt.

    Attributes:
        text: as a person reads it.
        tokens: as the model reads it.
        references: the right answers, where the data have any.
        origin: where the row stood.
    """

    text: str
    tokens: list[int]
    references: tuple[str, ...]
    origin: Origin


def questions(
    records: Sequence[Record], examples: Sequence[Example], codec: Any, count: int
) -> list[Question]:
    """At most ``count`` prompts: last questions, the sources of pairs, or openings of raw text.

    A conversation that branches asks what its best-ranked path asks; of answers that are compared
    the preferred one is the reference, and what was not liked is none.

    Args:
        records: held-out records.
        examples: the same in tokens, which sources are taken from as they were cut; raw text is
            asked to go on from a window's opening.
        codec: turns to tokens.
        count: how many.
    """
    talks = [_talk(record) for record in records]
    if any(isinstance(talk, Conversation) for talk in talks):
        asked = (_asked(talk, codec) for talk in talks if isinstance(talk, Conversation))
        return [found for found in asked if found is not None][:count]
    prompts = [r for r in records if isinstance(r, Prompt)]
    if prompts:
        return [_prompted(record, codec) for record in prompts[:count]]
    pairs = {r.origin: r for r in records if isinstance(r, SourceTarget)}
    if pairs:
        chosen = [example for example in examples if example.origin in pairs][:count]
        return [_source(pairs[example.origin], example) for example in chosen]
    long = [e for e in examples if len(e.segments) == 1 and e.size >= 2 * _OPENING]
    taken = min(count, len(long))
    return [_opening(long[i * len(long) // taken], codec) for i in range(taken)]


def own_questions(prompts: Sequence[str], codec: Any) -> list[Question]:
    """The user's own prompts, each a user turn of its own."""
    return [
        Question(text, codec.prompt((Turn("user", text),)), (), Origin("evaluation.prompts", line))
        for line, text in enumerate(prompts, 1)
    ]


def _talk(record: Record) -> Record:
    """A record whose answers are compared as a conversation with the best one."""
    match record:
        case ConversationTree():
            return best(record)
        case Preference(prompt=prompt, chosen=answer) | Thumb(prompt=prompt, answer=answer):
            liked = not isinstance(record, Thumb) or record.good
            return Conversation(record.origin, (*prompt, *answer) if liked else ())
        case Ranking(prompt=prompt, answers=(answer, *_)):
            return Conversation(record.origin, (*prompt, *answer))
    return record


def _asked(record: Conversation, codec: Any) -> Question | None:
    last = max((i for i, t in enumerate(record.turns) if t.role == "assistant"), default=None)
    if not last:
        return None
    before = record.turns[:last]
    reference = record.turns[last].content.strip()
    if record.turns[last].calls:  # as the template writes them
        answer = [p for p in codec.last_turn(record.turns[: last + 1]) if p.answer][-1]
        reference = codec.decode(answer.tokens).strip()
    return Question(_spoken(before), codec.prompt(before), (reference,), record.origin)


def _prompted(record: Prompt, codec: Any) -> Question:
    right = record.check.get("answer")
    known = () if right is None else (str(right),)
    return Question(_spoken(record.turns), codec.prompt(record.turns), known, record.origin)


def _source(record: SourceTarget, example: Example) -> Question:
    tokens = example.segments[0].tokens.tolist()
    return Question(record.source, tokens, (record.target.strip(),), record.origin)


def _opening(example: Example, codec: Any) -> Question:
    tokens = example.segments[0].tokens[:_OPENING].tolist()
    return Question(codec.decode(tokens), tokens, (), example.origin)


def spoken(record: Record) -> str:
    """A record's text as a person reads it."""
    if isinstance(record, Labelled):
        return record.text if record.pair is None else f"{record.text}\n{record.pair}"
    if isinstance(record, Conversation | Prompt):
        return _spoken(record.turns)
    if isinstance(record, ConversationTree):
        return _spoken([node.turn for node in record.nodes])
    if isinstance(record, SourceTarget):
        return record.source
    if isinstance(record, Thumb):
        return _spoken((*record.prompt, *record.answer))
    return record.text if isinstance(record, Text) else ""


def _spoken(turns: Sequence[Turn]) -> str:
    if len(turns) == 1:
        return turns[0].content
    return "\n".join(
        f"{turn.role}: {' '.join(said for said in (turn.content, turn.calls) if said)}"
        for turn in turns
        if turn.role != "tools"
    )
