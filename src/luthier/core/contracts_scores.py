"""The seams that judge: figures over examples, rewards of answers.

The other seams are in :mod:`luthier.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from luthier.core.generators import GeneratorSpec, Writer
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


@runtime_checkable
class Reward(Protocol):
    """Scores answers: a rule, a model, a judge.

    A score depends on the prompt and the answer alone, not on what is scored beside them.
    """

    #: Whether it waits for something else than this machine: it is then asked from a thread, while
    #: further answers are sampled.
    slow: ClassVar[bool]

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """One number an answer, of the prompt at the same place; more is better."""
        ...


class RewardModels(Protocol):
    """The models that rewards borrow, opened once and never trained."""

    def probabilities(self, model: str, label: str) -> Callable[[Sequence[str]], list[float]]:
        """Texts to a classifier's probability of one of its classes.

        Raises:
            UserError: no such model, no classifier, or no such class.
        """
        ...

    def scores(self, model: str) -> Callable[[Sequence[tuple[Prompt, str]]], list[float]]:
        """Prompts with answers to what a reward model gives them.

        Raises:
            UserError: no such model, or one that scores nothing.
        """
        ...

    def writer(self, spec: GeneratorSpec) -> Writer:
        """A language model that answers questions.

        Raises:
            UserError: no such model, or no key.
        """
        ...


@runtime_checkable
class Borrowing(Protocol):
    """A reward that needs a model."""

    def borrow(self, models: RewardModels) -> None:
        """Takes what it needs, before anything is scored."""
        ...
