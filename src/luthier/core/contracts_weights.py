"""The seams of weights: what more a method may promise of its base, and models combined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from luthier.core.contracts import KindConfig


@runtime_checkable
class QuantizedBase(Protocol):
    """A method that trains beside a base whose matrices are kept in few bits."""

    @property
    def quantize_on_load(self) -> bool:
        """Whether the base may be quantised while it is read, tensor by tensor.

        Else :meth:`Method.prepare` does it, having seen the matrices in full.
        """
        ...

    @property
    def covers_rounding(self) -> bool:
        """Whether the adapter starts as what quantisation loses, not as nothing."""
        ...


@runtime_checkable
class Prefixed(Protocol):
    """A method that puts something of its own before every example."""

    @property
    def prefix(self) -> int:
        """Places of the context that it takes."""
        ...


class Combination(Protocol):
    """A way of making one model's full weights from several models'."""

    #: Whether it asks for the weights that all were tuned from.
    needs_base: ClassVar[bool]

    @property
    def config(self) -> KindConfig:
        """Its settings."""
        ...

    def check(self, shares: Sequence[float]) -> None:
        """Whether these weights, one a model, make sense.

        Raises:
            RecipeError: they do not.
        """
        ...

    def survey(self, changes: Callable[[int], Iterable[Tensor]], count: int) -> None:
        """What must be known of all tensors first; ``changes(i)`` reads model i's, less the base's.

        Called for ways that ask for the base.
        """
        ...

    def combined(
        self, tensors: Sequence[Tensor], base: Tensor | None, shares: Sequence[float]
    ) -> Tensor:
        """One tensor from each model's, all in float32 or wider."""
        ...
