"""What objectives share that learn from answers of which one is better: pairs and rankings.

A ranking counts as all of its pairs, and their mean as one example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import Head, Models
from luthier.core.records import Batch, Example, Preference, Ranking, Record
from luthier.objectives._answers import ANSWER, answer_logprobs, asked, spoken_example
from luthier.ops.preferences import WATCHED, Sides, sides, watched_figures

#: The terms: preferences in prompts, likelihood of the best answers in tokens.
PREFERENCE, NLL = "preference", "nll"


class PairObjective:
    """The part of :class:`luthier.core.contracts.Objective` in which all of them agree."""

    records: ClassVar[tuple[type[Record], ...]] = (Preference, Ranking)
    metrics: ClassVar[tuple[str, ...]] = ("preference", "preference_calibration", "length_bias")
    overlong: ClassVar[str] = "left"
    needs_reference: ClassVar[bool] = False
    #: The table whose rows :meth:`scores` speaks of.
    table: ClassVar[str] = ANSWER

    def __init__(self, config: Any) -> None:
        self.config: Any = config

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head."""
        return (Head("lm"),)

    @property
    def watched(self) -> frozenset[str]:
        """The answers' implicit rewards, their margin, and how often it is positive."""
        return frozenset(WATCHED)

    @property
    def likelihood(self) -> float:
        """Coefficient of the best answer's negative log-likelihood; 0 for none."""
        return 0.0

    @property
    def strength(self) -> float:
        """Coefficient of the preference."""
        return 1.0

    def encode(self, record: Record, codec: Codec) -> Example:
        """The prompt once, with every answer as a child of it."""
        return spoken_example(asked(record), codec)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def rewards(self, sums: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """What the objective takes an answer to be worth: ``[A]``.

        Args:
            sums: ``[A]`` log-probability of each answer.
            lengths: ``[A]`` its tokens.
            batch: has what is known of the answers beside.
        """
        raise NotImplementedError

    def preferences(self, rewards: Sides) -> Tensor:
        """What each prompt's answers cost, by their rewards: ``[E, K]`` to ``[E]``."""
        raise NotImplementedError

    def weights(self, batch: Batch) -> dict[str, float]:
        """Prompts, and tokens of their best answers where these are learned as they are."""
        prompts = float((batch.targets[ANSWER]["place"] == 0).sum())
        found = {PREFERENCE: prompts}
        if self.likelihood:
            found[NLL] = float((batch.targets["lm"]["place"] == 0).sum())
        return found | dict.fromkeys(WATCHED, prompts)

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the prompts' losses, of their best answers' likelihood, and what is watched."""
        logprobs, sums, lengths = answer_logprobs(models, batch)
        rewards = _by_prompt(self.rewards(sums, lengths, batch), batch)
        terms = {PREFERENCE: self.strength * self.preferences(rewards).sum()}
        if self.likelihood:
            best = batch.targets["lm"]["place"] == 0
            terms[NLL] = -self.likelihood * (logprobs * best).sum()
        return terms | dict(zip(WATCHED, watched_figures(rewards), strict=True))

    def scores(self, models: Models, batch: Batch) -> Tensor:
        """The answers' rewards, as evaluation compares them: ``[A]``."""
        _, sums, lengths = answer_logprobs(models, batch)
        return self.rewards(sums, lengths, batch)


def _by_prompt(values: Tensor, batch: Batch) -> Sides:
    answer = batch.targets[ANSWER]
    return sides(values, answer["example"], answer["place"], len(batch.origins))
