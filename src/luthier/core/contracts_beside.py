"""What parts may promise beside their contracts: rows answered first, parameters solved for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from luthier.core.records import Record, Turn


@dataclass(frozen=True, slots=True)
class Solve:
    """How the parameters above a frozen trunk are found, all rows at once.

    Attributes:
        l2: strength of the penalty on matrices; ``None`` for the best of several on held-out rows.
        calibrate: whether a temperature is fitted to held-out rows.
        held: share of the training rows that are held out for these two.
        iterations: bound on those of one fit.
        tolerance: largest entry of the gradient where a fit ends.
    """

    l2: float | None
    calibrate: bool
    held: float
    iterations: int
    tolerance: float


@runtime_checkable
class Solving(Protocol):
    """A method that may leave its steps to a solver."""

    @property
    def solve(self) -> Solve | None:
        """How, or ``None`` where it is trained step by step."""
        ...


@runtime_checkable
class Answered(Protocol):
    """An objective whose training records another model answers first, once."""

    @property
    def answerer(self) -> str:
        """The model that answers, as a recipe names it."""
        ...

    @property
    def sampling(self) -> Mapping[str, Any]:
        """How it answers: ``max_new_tokens``, ``temperature`` and the like."""
        ...

    def question(self, record: Record) -> Sequence[Turn]:
        """What it is asked."""
        ...

    def answered(self, record: Record, answer: str) -> Record:
        """The record with its answer."""
        ...
