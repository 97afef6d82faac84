"""A reward model: a number for an answer, larger for the answers that people prefer.

``-log sigmoid(r(c) - r(r) - m)`` of a chosen and a rejected answer (Bradley & Terry 1952; Ouyang et
al. 2022, arXiv 2203.02155), ``m`` the margin that raters gave, where they did (Touvron et al. 2023,
arXiv 2307.09288); of a ranking ``-sum_k log(exp r_k / sum_{j >= k} exp r_j)`` (Plackett 1975, Luce
1959). A reward is known up to a constant a prompt; ``centre (sum_k r_k)^2`` fixes it near zero
(Eisenstein et al. 2023, arXiv 2312.09244).

A decoder reads the prompt once and its reward at an answer's end of turn; an encoder reads each
answer with its prompt before it, as a text of its own, pooled whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import Head, HeadedModel, KindConfig, Models
from luthier.core.errors import RecipeError
from luthier.core.records import Batch, Example, Preference, Ranking, Record
from luthier.objectives._answers import asked, read_segments
from luthier.ops.preferences import WATCHED, Sides, ranking_loss, sides, watched_figures

#: The kind of head, the table of answers (a row each, the best first), and the name of its output.
HEAD = "classification"
LABEL = "reward"
#: The terms: the preference, and the centring.
PREFERENCE, CENTRE = "preference", "centre"


class Config(KindConfig):
    """Settings of reward models."""

    kind: str = "reward"
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    """How an encoder's text becomes one vector; ``auto`` goes by the model. A decoder's is the
    answer's last token."""
    margins: bool = True
    """Ask for the margin that a row has; where none has one, it changes nothing."""
    centre: float = Field(default=0.0, ge=0)
    """Coefficient of the squared sum of a prompt's rewards; 0.01 in the paper, 0 for none."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Preference, Ranking)
    metrics: ClassVar[tuple[str, ...]] = ("preference", "preference_calibration", "length_bias")
    overlong: ClassVar[str] = "left"
    needs_reference: ClassVar[bool] = False
    #: The table whose rows :meth:`scores` speaks of.
    table: ClassVar[str] = HEAD

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def heads(self) -> tuple[Head, ...]:
        """One number."""
        pooling = None if self.config.pooling == "auto" else self.config.pooling
        return (Head(HEAD, 1, pooling, (LABEL,), "regression"),)

    @property
    def watched(self) -> frozenset[str]:
        """Rewards of both sides, their margin, and how often it is positive."""
        return frozenset(WATCHED)

    def encode(self, record: Record, codec: Codec) -> Example:
        """The answers, each ended by a segment of its own.

        Raises:
            RecipeError: a decoder, and a pooling that would not see the prompt.
        """
        if codec.causal and self.config.pooling not in ("auto", "last"):
            raise RecipeError(
                f"objective.pooling: {self.config.pooling} would read an answer without its "
                "prompt: a decoder's reward is read at the answer's last token",
                cure="leave objective.pooling out",
                code="pooling",
            )
        found = asked(record)
        segments, ends = read_segments(found, codec)
        margin = np.zeros(len(ends), dtype=np.float32)
        if self.config.margins and found.margin is not None:
            margin[0] = found.margin
        table: dict[str, Any] = {
            "segment": np.array(ends, dtype=np.int64),
            "place": np.arange(len(ends)),
            "margin": margin,
        }
        return Example(segments, {HEAD: table}, found.origin)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def weights(self, batch: Batch) -> dict[str, float]:
        """Prompts."""
        prompts = float((batch.targets[HEAD]["place"] == 0).sum())
        names = (PREFERENCE, *((CENTRE,) if self.config.centre else ()), *WATCHED)
        return dict.fromkeys(names, prompts)

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the prompts' losses."""
        table = batch.targets[HEAD]
        rewards = self.scores(models, batch)
        # The best answer is to be better by the margin: as if its reward were so much smaller.
        asked_for = self._by_prompt(rewards - table["margin"].to(rewards), batch)
        terms = {PREFERENCE: ranking_loss(asked_for).sum()}
        own = self._by_prompt(rewards, batch)
        if self.config.centre:
            terms[CENTRE] = self.config.centre * (own.values.sum(1) ** 2).sum()
        return terms | dict(zip(WATCHED, watched_figures(own), strict=True))

    def scores(self, models: Models, batch: Batch) -> Tensor:
        """The answers' rewards: ``[A]``."""
        policy, table = models.policy, batch.targets[HEAD]
        assert isinstance(policy, HeadedModel)
        rows = policy.pooled(batch, policy.hidden(batch), table["segment"])
        found = policy.outputs(HEAD, rows)[:, 0]
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def _by_prompt(self, values: Tensor, batch: Batch) -> Sides:
        table = batch.targets[HEAD]
        return sides(values, table["example"], table["place"], len(batch.origins))
