"""The seams of objectives that know texts and tokens better than the rest: windows, masks, pieces.

The other seams are in :mod:`luthier.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from luthier.core.codec import Codec
from luthier.core.records import Example, Ints, Record

if TYPE_CHECKING:
    from luthier.core.contracts import Objective


@runtime_checkable
class Windowed(Protocol):
    """An objective whose examples are texts between the tokens that the model knows around one.

    A text that is too long becomes windows with these tokens around each; they are cut where
    nothing is torn. The targets of its tables stand at the tokens that they speak of, not at the
    ones before.
    """

    def cuts(self, example: Example) -> Ints:
        """Positions before which an example may be cut, ascending."""
        ...


@runtime_checkable
class Tokenized(Protocol):
    """An objective that writes tokens of its own into examples (masks): it must know them."""

    def with_codec(self, codec: Codec) -> Objective:
        """The same, knowing the codec's tokens."""
        ...


@runtime_checkable
class Looking(Protocol):
    """An objective that tells a codec which texts come next, to be put into tokens together."""

    def look_ahead(self, records: Sequence[Record], codec: Codec) -> None:
        """Called with a piece of the records before each of them is encoded."""
        ...
