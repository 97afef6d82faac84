"""Answers to prompts as examples: the prompt once, every answer a child of it.

The first token of each answer is predicted by the prompt's last one, its end of turn is its last
token, and what a template writes after that is left out. Of an encoder, whose tokens see the whole
text, nothing can be shared: each answer is a text of its own with its prompt before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from luthier.core.codec import Codec, Piece, text_segment
from luthier.core.contracts import Models
from luthier.core.errors import DataError
from luthier.core.records import (
    Batch,
    Example,
    Ints,
    Origin,
    Preference,
    Ranking,
    Record,
    Segment,
    Thumb,
    Turn,
)

#: The table of answers: a row each, the best first.
ANSWER = "answer"
#: Its column with the log-probability of the whole answer under the model of step 0.
REFERENCE = "reference_logprob"


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and its answers.

    Attributes:
        prompt: turns up to where the assistant begins to speak.
        answers: the best first.
        margin: by how much the first is better than the second, where raters said so.
        origin: where the row stood.
    """

    prompt: tuple[Turn, ...]
    answers: tuple[tuple[Turn, ...], ...]
    origin: Origin
    margin: float | None = None


def asked(record: Record) -> Asked:
    """A pair, a ranking or a thumb as a prompt with answers.

    Raises:
        DataError: no prompt, or an answer that says nothing.
    """
    match record:
        case Preference():
            found = Asked(
                record.prompt, (record.chosen, record.rejected), record.origin, record.margin
            )
        case Ranking():
            found = Asked(record.prompt, record.answers, record.origin)
        case Thumb():
            found = Asked(record.prompt, (record.answer,), record.origin)
        case _:
            raise AssertionError(f"{type(record).__name__} has no answers")
    if not found.prompt:
        raise DataError("no prompt to answer", str(record.origin), code="empty")
    for answer in found.answers:
        if not any(turn.content.strip() or turn.calls for turn in answer):
            raise DataError(
                "an answer is empty: the model would learn about nothing",
                str(record.origin),
                "fill it in or take the row out",
                code="empty",
            )
    return found


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer in tokens, and which of them are the assistant's."""

    tokens: Ints
    said: Any


def tokens_of(
    prompt: Sequence[Turn], answers: Sequence[Sequence[Turn]], codec: Codec, origin: Origin
) -> tuple[Ints, list[Spoken]]:
    """The prompt's tokens, and each answer's up to its last end of turn.

    Raises:
        DataError: a template that writes the prompt differently before different answers.
        UserError: what the template refuses.
    """
    begun: tuple[int, ...] | None = None
    made: list[Spoken] = []
    for answer in answers:
        before, spoken = _divided(_pieces(prompt, answer, codec), len(prompt))
        if begun is not None and before != begun:
            raise DataError(
                "the chat template writes the prompt differently before this row's answers",
                str(origin),
                "give data.template one that does not look ahead",
                "template",
            )
        begun = before
        made.append(spoken)
    return np.array(begun or (), dtype=np.int64), made


def _pieces(prompt: Sequence[Turn], answer: Sequence[Turn], codec: Codec) -> list[Piece]:
    # One turn is rendered as generation will see it, also by templates that rewrite earlier turns.
    turns = (*prompt, *answer)
    return codec.last_turn(turns) if len(answer) == 1 else codec.dialogue(turns)


def _divided(pieces: Sequence[Piece], turns: int) -> tuple[tuple[int, ...], Spoken]:
    """What stands before an answer, and the answer, without what follows its end of turn."""
    own = [i for i, piece in enumerate(pieces) if piece.turn is not None and piece.turn >= turns]
    assert own, "an answer that leaves no token"
    # Before a first turn that is not the assistant's, the template's own words belong to it.
    first = own[0]
    last = max(i for i, piece in enumerate(pieces) if piece.answer)
    before = tuple(token for piece in pieces[:first] for token in piece.tokens)
    chosen = pieces[first : last + 1]
    tokens = [token for piece in chosen for token in piece.tokens]
    said = [piece.answer for piece in chosen for _ in piece.tokens]
    return before, Spoken(np.array(tokens, dtype=np.int64), np.array(said, dtype=bool))


def shared(prompt: Ints, answers: Sequence[Ints]) -> tuple[Segment, ...]:
    """A prompt with answers as its children."""
    return (Segment(prompt), *(Segment(answer, parent=0) for answer in answers))


def spoken_example(found: Asked, codec: Codec) -> Example:
    """A prompt with its answers for a language model.

    Tables: ``lm``, a row for every token that the assistant says in an answer, with the answer's
    ``segment`` and ``place`` (0 the best); ``answer``, a row an answer.
    """
    prompt, answers = tokens_of(found.prompt, found.answers, codec, found.origin)
    if not len(prompt):
        raise DataError("no prompt to answer", str(found.origin), code="empty")
    segments = shared(prompt, [answer.tokens for answer in answers])
    rows = [
        lm_rows(len(prompt), start, answer, number)
        for number, (start, answer) in enumerate(
            zip(_starts(len(prompt), answers), answers, strict=True)
        )
    ]
    table = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    count = len(answers)
    answer_table = {"segment": np.arange(1, count + 1), "place": np.arange(count)}
    return Example(segments, {"lm": table, ANSWER: answer_table}, found.origin)


def lm_rows(prompt: int, start: int, answer: Spoken, number: int) -> dict[str, Any]:
    """Rows of the ``lm`` table of one answer, which is segment ``number + 1``.

    Args:
        prompt: tokens of the prompt, whose last one predicts the answer's first.
        start: where the answer begins among the example's tokens.
        answer: its tokens.
        number: its place among the answers.
    """
    own = np.flatnonzero(answer.said)
    before = np.where(own == 0, prompt - 1, start + own - 1)
    return {
        "position": before.astype(np.int64),
        "token": answer.tokens[own],
        "weight": np.ones(len(own), dtype=np.float32),
        "segment": np.full(len(own), number + 1, dtype=np.int64),
        "place": np.full(len(own), number, dtype=np.int64),
    }


def _starts(prompt: int, answers: Sequence[Spoken]) -> list[int]:
    ends = np.cumsum([prompt, *(len(answer.tokens) for answer in answers)])
    return [int(end) for end in ends[:-1]]


def read_segments(found: Asked, codec: Codec) -> tuple[tuple[Segment, ...], list[int]]:
    """Answers as a head reads them: the segments, and which one ends each answer.

    A decoder reads the prompt once; an encoder reads each answer with its prompt before it.
    """
    if not codec.causal:
        texts = [transcript((*found.prompt, *answer)) for answer in found.answers]
        return tuple(text_segment(codec, text) for text in texts), list(range(len(texts)))
    prompt, answers = tokens_of(found.prompt, found.answers, codec, found.origin)
    segments = shared(prompt, [answer.tokens for answer in answers])
    return segments, list(range(1, len(segments)))


def transcript(turns: Sequence[Turn]) -> str:
    r"""Turns as an encoder reads them, each behind the name of its role.

    >>> transcript([Turn("user", "Hi."), Turn("assistant", "Hello!")])
    'user: Hi.\nassistant: Hello!'
    """
    return "\n".join(
        f"{turn.role}: {' '.join(part for part in (turn.content, turn.calls) if part)}"
        for turn in turns
    )


def answer_logprobs(models: Models, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row of the ``lm`` table its log-probability ``[R]``; of each answer sum and length.

    Sums and lengths are of the tokens that the assistant says, ``[A]`` in the table's order.
    """
    policy, table, answer = models.policy, batch.targets["lm"], batch.targets[ANSWER]
    logprobs, _ = policy.logprobs(batch, policy.hidden(batch))
    sums, lengths = by_answer(logprobs, batch)
    assert len(table["segment"]) == len(logprobs)
    return logprobs, sums[answer["segment"]], lengths[answer["segment"]]


def by_answer(logprobs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows of the ``lm`` table added up by segment, and how many there are: ``[S]`` twice."""
    owner = batch.targets["lm"]["segment"]
    empty = logprobs.new_zeros(len(batch.segments.starts))
    lengths = empty.index_add(0, owner, torch.ones_like(logprobs))
    return empty.index_add(0, owner, logprobs), lengths


@torch.no_grad()
def reference_columns(models: Models, batch: Batch) -> dict[str, dict[str, Tensor]]:
    """What the model of step 0 says of whole answers.

    Columns are asked for before the first step, when that model is the policy itself; so no copy
    of it is kept.
    """
    _, sums, _ = answer_logprobs(models, batch)
    return {ANSWER: {REFERENCE: sums}}
