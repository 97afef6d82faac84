"""What a method may promise beside its contract: that its parameters are solved for at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


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
