"""The seams that judge: figures over examples, rewards of answers.

The other seams are in :mod:`luthier.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from luthier.core.records import Batch, Prompt, Scored

if TYPE_CHECKING:
    from torch import Tensor

    from luthier.core.contracts import Models


class Metric(Protocol):
    """A figure over examples, kept as rows that can be summed, so that a bootstrap can resample.

    Every name in :attr:`names` is a function of the column sums of its rows: a mean is
    ``[score, 1]``, perplexity ``[nll, tokens]``, corpus BLEU its n-gram counts.
    """

    needs: ClassVar[frozenset[str]]
    names: ClassVar[tuple[str, ...]]
    higher_is_better: ClassVar[bool]

    def update(self, scored: Scored) -> None:
        """Adds one example."""
        ...

    def rows(self) -> dict[str, npt.NDArray[np.float64]]:
        """Per name, ``[examples, k]`` summable figures in the order of the updates."""
        ...

    def reduce(self, name: str, totals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Column sums ``[..., k]`` to values ``[...]``."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """An objective that says what an answer is worth: evaluation measures it by that.

    A reward model's output; of a language model what its objective takes for a reward (how much
    likelier than at step 0, how likely a token).
    """

    #: The table with a row an answer: ``segment``, and ``place`` among its prompt's, 0 the best.
    table: ClassVar[str]

    def scores(self, models: Models, batch: Batch) -> Tensor:
        """A number for each row of the table; more is better."""
        ...


class Reward(Protocol):
    """Scores answers: a rule, a model, a judge."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """One number an answer, of the prompt at the same place; more is better."""
        ...
