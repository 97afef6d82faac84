"""TIES: changes trimmed, their signs voted on, and the agreeing ones averaged.

Of each model's change ``t_i = w_i - w_0``, all entries of all tensors together, the largest
``keep`` stay; an entry's sign is that of ``sum_i p_i t_i``; what agrees with it is averaged,
weighed by ``p_i``; the result is ``w_0 + scale t`` (Yadav et al. 2023, arXiv 2306.01708).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from luthier.core.contracts import KindConfig
from luthier.core.errors import RecipeError

_HALF = 1 << 16


class Config(KindConfig):
    """Settings of TIES."""

    kind: str = "ties"
    keep: float = Field(default=0.2, gt=0, le=1)
    """Share of each model's largest changes that count."""
    scale: float = Field(default=1.0, gt=0)
    """Factor on the combined change."""


class Combination:
    """See the module."""

    needs_base: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.bounds: list[float] = []

    def check(self, shares: Sequence[float]) -> None:
        """Weights are votes.

        Raises:
            RecipeError: one is not positive.
        """
        if min(shares) <= 0:
            raise RecipeError(f"the weights of 'ties' are votes, and {min(shares):g} is none")

    def survey(self, changes: Callable[[int], Iterable[Tensor]], count: int) -> None:
        """Finds the smallest change of each model that counts, reading it twice."""
        self.bounds = [self._bound(lambda i=i: changes(i)) for i in range(count)]  # type: ignore[misc]

    def _bound(self, read: Callable[[], Iterable[Tensor]]) -> float:
        """The magnitude of the change that is just kept, exactly.

        Magnitudes as float32 are ordered as their bits are: the upper half of the bits is counted
        first, then the lower half of those that share the bound's upper one.
        """
        upper = torch.zeros(_HALF // 2, dtype=torch.int64)
        for change in read():
            upper += torch.bincount(_bits(change) >> 16, minlength=_HALF // 2)
        wanted = max(1, round(self.config.keep * int(upper.sum())))
        high, above = _place(upper, wanted)
        lower = torch.zeros(_HALF, dtype=torch.int64)
        for change in read():
            bits = _bits(change)
            lower += torch.bincount(bits[bits >> 16 == high] & (_HALF - 1), minlength=_HALF)
        low, _ = _place(lower, wanted - above)
        return float(torch.tensor(high << 16 | low, dtype=torch.int32).view(torch.float32))

    def combined(
        self, tensors: Sequence[Tensor], base: Tensor | None, shares: Sequence[float]
    ) -> Tensor:
        """One tensor from each model's, in float32."""
        assert base is not None
        kept = []
        for tensor, bound in zip(tensors, self.bounds, strict=True):
            change = (tensor - base).float()
            kept.append(change.masked_fill_(change.abs() < bound, 0.0))
        vote = sum(change * share for change, share in zip(kept, shares, strict=True))
        assert isinstance(vote, Tensor)
        signs = vote.sign()
        total, weight = torch.zeros_like(vote), torch.zeros_like(vote)
        for change, share in zip(kept, shares, strict=True):
            agrees = (change.sign() == signs) & (signs != 0)
            total += torch.where(agrees, change * share, 0.0)
            weight += agrees * share
        return base + self.config.scale * total / weight.clamp_min(1e-12)


def _bits(change: Tensor) -> Tensor:
    return change.float().abs().flatten().view(torch.int32).long()


def _place(counts: Tensor, wanted: int) -> tuple[int, int]:
    """Of counts in ascending order, where the ``wanted``-th from above lies, and how many above."""
    above = counts.flip(0).cumsum(0)
    place = int((above < wanted).sum())
    return len(counts) - 1 - place, int(above[place - 1]) if place else 0
