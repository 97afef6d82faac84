"""Kahneman-Tversky optimisation: answers liked and disliked, each by itself, no pairs needed.

``lambda_D (1 - sigmoid(beta (r - z)))`` of an answer that was liked, ``lambda_U (1 - sigmoid(beta
(z - r)))`` of one that was not, with ``r = log p(y|x) / p_0(y|x)`` against the model of step 0
(Ethayarajh et al. 2024, arXiv 2402.01306). ``z`` is how far the policy is from that model: the mean
of ``log p(y'|x) / p_0(y'|x)`` over the step's prompts, each with another row's answer ``y'``, not
below 0 and without gradient.

The other row's answer is a second child of the prompt, drawn anew in every epoch. Departure: it is
cut where prompt and answers would be longer than the step's longest example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import Head, KindConfig, Models
from luthier.core.records import Batch, Example, Record, Segment, Thumb
from luthier.objectives._answers import (
    ANSWER,
    REFERENCE,
    Spoken,
    answer_logprobs,
    asked,
    by_answer,
    lm_rows,
    reference_columns,
    spoken_example,
    tokens_of,
)

#: The table of other rows' answers, and the loss term.
OTHER, TERM = "other", "kto"
#: Sums over the other answers that the baseline is made of.
_POLICY, _START, _COUNT = "kl_policy", "kl_start", "kl_count"
WATCHED = ("liked_reward", "disliked_reward", "kl")


class Config(KindConfig):
    """Settings of Kahneman-Tversky optimisation."""

    kind: str = "kto"
    beta: float = Field(default=0.1, gt=0)
    """How dearly leaving the model of step 0 is paid for."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """Weight of answers that were liked; where one kind is rarer, weigh it up: the paper keeps
    weight times number within 1 to 4/3 of the other's."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """Weight of answers that were not."""
    baseline: Literal["mismatched", "batch"] = "mismatched"
    """What the answers are held against: ``mismatched`` prompts and answers, as in the paper, or
    the mean of the step's own answers (``batch``), which costs no further pass."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Thumb,)
    metrics: ClassVar[tuple[str, ...]] = ("thumbs",)
    overlong: ClassVar[str] = "left"
    #: The table whose rows :meth:`scores` speaks of.
    table: ClassVar[str] = ANSWER
    #: What of the settings the columns depend on beside the tokens: nothing.
    column_settings: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: Config) -> None:
        self.config = config
        self._mismatched = config.baseline == "mismatched"
        self.needs_reference = self._mismatched

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head."""
        return (Head("lm"),)

    @property
    def watched(self) -> frozenset[str]:
        """The mean rewards of both kinds, and the baseline."""
        return frozenset(WATCHED)

    def encode(self, record: Record, codec: Codec) -> Example:
        """The prompt with its answer, and a second child for another row's."""
        assert isinstance(record, Thumb)
        found = asked(record)
        example = spoken_example(found, codec)
        good = np.array([record.good], dtype=np.int64)
        answer = {**example.targets[ANSWER], "good": good}
        targets: dict[str, Any] = {**example.targets, ANSWER: answer}
        if not self._mismatched:
            return replace(example, targets=targets)
        prompt, [own] = tokens_of(found.prompt, found.answers, codec, found.origin)
        targets[OTHER] = {"segment": np.array([2], dtype=np.int64)}
        return _with_other(replace(example, targets=targets), own, len(prompt))

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Each prompt with another row's answer beside its own."""
        if not self._mismatched:
            return examples
        order = rng.permutation(len(examples))
        widest = max(example.size for example in examples)
        deepest = max(example.depth() for example in examples)
        made: list[Example] = list(examples)
        for place, index in enumerate(order):
            example, other = examples[index], examples[order[(place + 1) % len(order)]]
            prompt, own = (len(segment.tokens) for segment in example.segments[:2])
            room = min(widest - prompt - own, deepest - prompt)
            made[index] = _with_other(example, _own(other, room), prompt)
        return made

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """What the model of step 0 says of every row's own answer."""
        return reference_columns(models, batch)

    @torch.no_grad()
    def statistics(self, models: Models, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Sums over the step's other answers (or its own), of both models."""
        known = {name: torch.zeros((), dtype=torch.float64) for name in (_START, _COUNT)}
        device = batches[0].tokens.device
        found = {name: value.to(device) for name, value in known.items()}
        whole = bool(batches[0].step["whole"])
        if not whole:
            found[_POLICY] = found[_START].clone()
            for batch in batches:
                found[_POLICY] += self._sums(models, batch).double().sum()
        for batch in batches:
            found[_COUNT] += len(self._held(batch)["segment"])
            if not self._mismatched:
                found[_START] += batch.targets[ANSWER][REFERENCE].double().sum()
        if self._mismatched:
            with models.reference() as reference:
                for batch in batches:
                    said, _ = reference.logprobs(batch, reference.hidden(batch))
                    sums, _ = by_answer(said, batch)
                    found[_START] += sums[self._held(batch)["segment"]].double().sum()
        return found

    def weights(self, batch: Batch) -> dict[str, float]:
        """Answers; of what is watched, answers of each kind."""
        good = batch.targets[ANSWER]["good"]
        count, liked = float(len(good)), float(good.sum())
        return {TERM: count, **dict(zip(WATCHED, (liked, count - liked, count), strict=True))}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the answers' losses."""
        c, answer = self.config, batch.targets[ANSWER]
        logprobs, sums, _ = answer_logprobs(models, batch)
        above = sums - answer[REFERENCE].to(sums)
        baseline = self._baseline(logprobs.detach(), batch)
        good = answer["good"] > 0
        signs, weights = (
            torch.where(good, above.new_tensor(yes), above.new_tensor(no))
            for yes, no in ((1.0, -1.0), (c.desirable_weight, c.undesirable_weight))
        )
        losses = weights * (1 - torch.sigmoid(c.beta * signs * (above - baseline)))
        rewards = c.beta * above.detach()
        liked, disliked = (rewards * good).sum(), (rewards * ~good).sum()
        figures = (liked, disliked, baseline * len(good))
        return {TERM: losses.sum(), **dict(zip(WATCHED, figures, strict=True))}

    def scores(self, models: Models, batch: Batch) -> Tensor:
        """``beta`` times how much likelier each answer has become: ``[A]``."""
        _, sums, _ = answer_logprobs(models, batch)
        above: Tensor = sums - batch.targets[ANSWER][REFERENCE].to(sums)
        return above * self.config.beta

    def _held(self, batch: Batch) -> Mapping[str, Tensor]:
        """The table of the answers that the baseline is made of."""
        return batch.targets[OTHER if self._mismatched else ANSWER]

    def _sums(self, models: Models, batch: Batch) -> Tensor:
        """Log-probabilities of the answers that the baseline is made of."""
        logprobs, _, _ = answer_logprobs(models, batch)
        return by_answer(logprobs, batch)[0][self._held(batch)["segment"]]

    def _baseline(self, logprobs: Tensor, batch: Batch) -> Tensor:
        """``z``; of a batch that is the whole step, the policy's part is its own."""
        step = batch.step
        if _COUNT not in step:  # nobody asked: nothing is held against the answers
            return logprobs.new_zeros(())
        policy = step.get(_POLICY)
        if policy is None:
            policy = by_answer(logprobs, batch)[0][self._held(batch)["segment"]].double().sum()
        mean: Tensor = (policy - step[_START]) / step[_COUNT].clamp(min=1)
        return mean.clamp(min=0).to(logprobs)


def _own(example: Example, room: int) -> Spoken:
    """A row's own answer, cut to so many tokens."""
    tokens = example.segments[1].tokens[:room]
    table = example.targets["lm"]
    prompt = len(example.segments[0].tokens)
    own = table["segment"] == 1
    # A row stands before the token that it predicts; the first one's is the prompt's last.
    places = table["position"][own] - prompt + 1
    said = np.zeros(len(example.segments[1].tokens), dtype=bool)
    said[places] = True
    return Spoken(tokens, said[:room])


def _with_other(example: Example, other: Spoken, prompt: int) -> Example:
    """An example whose second child is another row's answer."""
    segments = (*example.segments[:2], Segment(other.tokens, parent=0))
    start = prompt + len(example.segments[1].tokens)
    table = example.targets["lm"]
    own = table["segment"] == 1
    rows = lm_rows(prompt, start, other, 1)
    joined = {name: np.concatenate([column[own], rows[name]]) for name, column in table.items()}
    return replace(example, segments=segments, targets={**example.targets, "lm": joined})
