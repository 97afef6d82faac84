"""Any language-model objective with a pull towards the model at the start.

The objective's own terms, and ``coefficient KL(p || q)`` at every learned token, ``p`` the
distribution of the model that the run starts from and ``q`` the one that learns: learning without
forgetting (Li & Hoiem 2016, arXiv 1606.09282) with the old model's answers on the new rows.
Departures: no temperature, and of ``p`` the likeliest tokens are kept, all others as one class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from luthier.core.codec import Codec
from luthier.core.contracts import (
    Accompanied,
    FrozenColumns,
    Head,
    KindConfig,
    Models,
    Objective,
    OnlineObjective,
    StepStatistics,
    Watching,
)
from luthier.core.contracts_data import Sourced
from luthier.core.errors import RecipeError
from luthier.core.records import Batch, Example, Record
from luthier.ops.divergence import head_divergence, top_classes

#: The name of the model at the start among the companions, and the columns of what it said.
START = "start"
_COLUMNS = ("start_token", "start_logprob", "start_rest")
#: Tokens kept of every position.
_TOP = 64
_MORE = (Accompanied, FrozenColumns, StepStatistics, Watching, OnlineObjective)


class Pulled:
    """An objective with the pull as one term more.

    Args:
        inner: what is learned; it has the language-model head alone.
        start: the model at the start, as a recipe names it.
        coefficient: of the pull.

    Raises:
        RecipeError: an objective that the pull has no meaning for.
    """

    def __init__(self, inner: Objective, start: str | None, coefficient: float) -> None:
        lm = [head.kind for head in inner.heads] == ["lm"]
        if start is None or not lm or isinstance(inner, _MORE):
            why = (
                "a model from scratch has nothing to forget"
                if start is None
                else f"'{inner.config.kind}' does not learn from tokens alone"
            )
            raise RecipeError(
                f"retain.kl pulls towards the model at the start, and {why}",
                cure="leave retain.kl out",
                code="pairing",
            )
        self._inner, self._start, self._coefficient = inner, start, coefficient
        self.records, self.metrics = inner.records, inner.metrics
        self.overlong, self.needs_reference = inner.overlong, inner.needs_reference
        if isinstance(inner, Sourced):
            self.bounds = inner.bounds
        self.independent_leaves = bool(getattr(inner, "independent_leaves", False))

    @property
    def config(self) -> KindConfig:
        """The inner one's."""
        return self._inner.config

    @property
    def heads(self) -> tuple[Head, ...]:
        """The language-model head."""
        return self._inner.heads

    @property
    def companions(self) -> Mapping[str, str]:
        """The model at the start, asked once."""
        return {START: self._start}

    def encode(self, record: Record, codec: Codec) -> Example:
        """As the inner one."""
        return self._inner.encode(record, codec)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """As the inner one."""
        return self._inner.arrange(examples, rng)

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """What the model at the start says at every learned token."""
        start = models.companions[START]
        rows = start.hidden(batch).index_select(0, batch.targets["lm"]["position"])
        found = top_classes(start.logits, rows, _TOP, 1.0, _width(start, rows))
        return {"lm": dict(zip(_COLUMNS, found, strict=True))}

    def weights(self, batch: Batch) -> dict[str, float]:
        """The inner terms', and learned tokens."""
        return {**self._inner.weights(batch), "kl": float(batch.targets["lm"]["weight"].sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """The inner terms, and the sum of the learned tokens' divergences."""
        policy = _Once(models.policy)
        terms = self._inner.loss(_With(models, policy), batch)
        table = batch.targets["lm"]
        rows = policy.hidden(batch).index_select(0, table["position"])
        apart = head_divergence(
            policy.logits,
            rows,
            (table[_COLUMNS[0]], table[_COLUMNS[1]], table[_COLUMNS[2]]),
            table["weight"],
            _width(policy, rows),
            kind="forward_kl",
            temperature=1.0,
        )
        return {**terms, "kl": self._coefficient * apart}


class _Once:
    """A model whose trunk runs once a batch, however often it is asked for its states."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._found: Tensor | None = None

    def hidden(self, batch: Batch) -> Tensor:
        """``[N, H]``, the same for every caller."""
        if self._found is None:
            self._found = self._model.hidden(batch)
        return self._found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _With:
    """The models of a run with another policy."""

    def __init__(self, models: Models, policy: Any) -> None:
        self._models, self.policy = models, policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)


def _width(model: Any, rows: Tensor) -> int:
    """Outputs of a model's language-model head."""
    return int(model.logits(rows[:0]).shape[-1])
