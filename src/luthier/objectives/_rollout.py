"""A rollout's answers as tables, and a prompt with its answers as one small tree.

``R`` sampled tokens, ``S`` answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from luthier.core.records import Answer, Batch, Example, Record, Segment, Table
from luthier.ops.advantages import kl_estimate, per_answer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rollout:
    """All answers of a step, as tensors in float64.

    Attributes:
        examples: a prompt with its answers each.
        tokens: the columns of ``lm``, end to end, and ``owner``: the answer that each is of.
        answers: those of ``answer``, and ``group``: the prompt of each.
    """

    examples: Sequence[Example]
    tokens: Mapping[str, Tensor]
    answers: Mapping[str, Tensor]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Rollout:
        """The tables of examples, end to end."""
        tokens, answers = _joined(examples, "lm"), _joined(examples, "answer")
        counts = [len(example.targets["answer"]["segment"]) for example in examples]
        answers["group"] = torch.repeat_interleave(torch.tensor(counts))
        owners, before = [], 0
        for example, count in zip(examples, counts, strict=True):
            # Answers are the segments behind the prompt, in order.
            owners.append(torch.from_numpy(example.targets["lm"]["segment"] - 1 + before))
            before += count
        tokens["owner"] = torch.cat(owners)
        return cls(examples, tokens, answers)

    @property
    def old(self) -> Tensor:
        """``[R]`` what the policy said when it sampled, as exactly as it is known."""
        return self.tokens.get("old_logprob", self.tokens["sampled_logprob"])

    @property
    def count(self) -> int:
        """Answers."""
        return len(self.answers["group"])

    def pulled(self, strength: float) -> Tensor:
        """``[S]`` rewards less the pull on each whole answer, by k1."""
        rewards = self.answers["reward"]
        if not strength:
            return rewards
        apart = kl_estimate(self.old, self.tokens["reference_logprob"], "k1")
        return rewards - strength * per_answer(apart, self.tokens["owner"], self.count)

    def spread(self) -> float:
        """Mean standard deviation of the rewards within a group: 0 teaches nothing."""
        rewards, group = self.answers["reward"], self.answers["group"]
        within = [rewards[group == n] for n in range(len(self.examples))]
        found = [float(r.std(correction=0)) for r in within if len(r)]
        return sum(found) / len(found)

    def with_columns(self, head: str, columns: Mapping[str, Tensor]) -> Sequence[Example]:
        """The examples with further columns of a table, given end to end."""
        made, at = [], 0
        plain = {name: column.to(torch.float32).numpy() for name, column in columns.items()}
        for example in self.examples:
            table = example.targets[head]
            rows = len(table["segment"])
            more = {name: column[at : at + rows] for name, column in plain.items()}
            wider: dict[str, Array] = {**table, **more}
            targets: dict[str, Table] = {**example.targets, head: wider}
            made.append(replace(example, targets=targets))
            at += rows
        return made


def grouped(
    prompt: Sequence[int],
    answers: Sequence[Answer],
    columns: Mapping[str, Array],
    record: Record,
) -> Example:
    """A prompt and its answers as one small tree; the prompt's last token predicts each's first."""
    segments = [Segment(np.asarray(prompt, dtype=np.int64))]
    position: list[int] = []
    at = len(prompt)
    for answer in answers:
        segments.append(Segment(np.asarray(answer.tokens, dtype=np.int64), parent=0))
        position += [len(prompt) - 1, *range(at, at + len(answer.tokens) - 1)]
        at += len(answer.tokens)
    sizes = [len(answer.tokens) for answer in answers]
    numbers = np.arange(1, len(answers) + 1)
    said = [
        logprob for answer in answers for logprob in answer.logprobs or [0.0] * len(answer.tokens)
    ]
    table: dict[str, Array] = {
        "position": np.array(position, dtype=np.int64),
        "token": np.array([t for answer in answers for t in answer.tokens], dtype=np.int64),
        "weight": np.ones(sum(sizes), dtype=np.float32),
        "segment": np.repeat(numbers, sizes).astype(np.int64),
        "sampled_logprob": np.array(said, dtype=np.float32),
    }
    earned: dict[str, Array] = {"segment": numbers.astype(np.int64), **columns}
    return Example(tuple(segments), {"lm": table, "answer": earned}, record.origin)


def over_answers(tokens: Tensor, batch: Batch) -> Tensor:
    """Sums over each answer's tokens, in the order of the table ``answer``: ``[R] -> [S]``."""
    count = len(batch.segments.starts)
    summed = per_answer(tokens, batch.targets["lm"]["segment"], count)
    return summed.index_select(0, batch.targets["answer"]["segment"])


def pruned(example: Example, keep: Sequence[int]) -> Example:
    """The example with some of its answers alone, in order."""
    old = example.starts()
    segments = [example.segments[0], *(example.segments[n + 1] for n in keep)]
    table, answers = example.targets["lm"], example.targets["answer"]
    first = len(example.segments[0].tokens)
    pieces: dict[str, list[Array]] = {name: [] for name in table}
    at = first
    for number, place in enumerate(keep, start=1):
        mine = table["segment"] == place + 1
        for name, column in table.items():
            values = column[mine]
            if name == "segment":
                values = np.full_like(values, number)
            if name == "position":  # the first one is the prompt's last token
                values = np.where(values < first, values, values - old[place + 1] + at)
            pieces[name].append(values)
        at += len(example.segments[place + 1].tokens)
    kept = {name: column[list(keep)] for name, column in answers.items()}
    kept["segment"] = np.arange(1, len(keep) + 1)
    joined = {name: np.concatenate(parts) for name, parts in pieces.items()}
    return Example(tuple(segments), {"lm": joined, "answer": kept}, example.origin)


def _joined(examples: Sequence[Example], head: str) -> dict[str, Tensor]:
    names = [name for name in examples[0].targets[head] if name not in ("position", "segment")]
    return {
        name: torch.from_numpy(
            np.concatenate([example.targets[head][name] for example in examples])
        ).double()
        for name in names
    }


def correlation(a: Tensor, b: Tensor) -> float:
    """Of lengths and rewards: what a reward that length can buy shows first."""
    if len(a) < 2 or float(a.std()) == 0 or float(b.std()) == 0:
        return 0.0
    found = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    return found if math.isfinite(found) else 0.0
