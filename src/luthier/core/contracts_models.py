"""What more a model may promise than :class:`luthier.core.contracts.LanguageModel` says.

Shapes as in :mod:`luthier.core.records`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from luthier.core.contracts import LanguageModel
from luthier.core.records import Batch

if TYPE_CHECKING:
    from torch import Tensor

#: The table that carries what a batch's lowest blocks give: ``state``, one row a token.
STATES = "trunk"


@runtime_checkable
class DividedModel(LanguageModel, Protocol):
    """A model whose lowest blocks can be run apart from the others.

    A batch with the table :data:`STATES` brings what they give, and ``hidden`` runs the others.
    """

    @property
    def lower_stream(self) -> str:
        """The segments whose tokens :meth:`lower` gives a state: ``main`` or ``source``."""
        ...

    def divide(self, depth: int) -> str | None:
        """:meth:`lower` then means the lowest ``depth`` blocks; why it cannot, or ``None``."""
        ...

    def lower(self, batch: Batch) -> Tensor:
        """What these give: ``[N, H]`` in logical order, of an encoder the source's."""
        ...


class Decoder(Protocol):
    """A language model that writes token by token, several answers at once.

    Answers stand in slots, ``n`` of them; new ones come behind the others.
    """

    def enter(self, prompts: Sequence[Sequence[int]], copies: int) -> Tensor:
        """New prompts, each with so many answers; scores of their first tokens ``[P, V]``."""
        ...

    def advance(self, tokens: Tensor) -> Tensor:
        """The next token of every answer ``[n]`` to scores of the one after it ``[n, V]``."""
        ...

    def leave(self, row: int) -> None:
        """The answer in this slot is done; the last one takes the slot."""
        ...
