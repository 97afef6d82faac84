"""Weighted average of full weights (model soups: Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from torch import Tensor

from luthier.core.contracts import KindConfig
from luthier.core.errors import RecipeError


class Config(KindConfig):
    """An average has no settings of its own."""

    kind: str = "average"


class Combination:
    """See the module."""

    needs_base: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, shares: Sequence[float]) -> None:
        """The weights must leave the scale of the model as it is.

        Raises:
            RecipeError: they do not sum to 1.
        """
        if abs(sum(shares) - 1) > 1e-6:
            raise RecipeError(
                f"the weights sum to {sum(shares):g}; an average's must sum to 1",
                cure="adapters on one base may have any: they are summed",
            )

    def survey(self, changes: Callable[[int], Iterable[Tensor]], count: int) -> None:
        """Nothing need be known, and nothing is asked for."""

    def combined(
        self, tensors: Sequence[Tensor], base: Tensor | None, shares: Sequence[float]
    ) -> Tensor:
        """One tensor from each model's, in float32 or wider."""
        total = tensors[0] * shares[0]
        for tensor, share in zip(tensors[1:], shares[1:], strict=True):
            total.add_(tensor, alpha=share)
        return total
