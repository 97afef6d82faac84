"""Rows that say the same, or nearly: inside a split, and in two."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from luthier.core.findings import Code, Finding
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Known, Seen
from luthier.data.contents import short_hash
from luthier.data.similar import Similar, sketched

LEAK = Code(
    "D040",
    "error",
    "the same row in two splits (leak)",
    "take it out of one of them, or every figure measured on it is too good",
)
NEAR_LEAK = Code(
    "D041",
    "error",
    "nearly the same row in two splits (leak)",
    "take it out of one of them, or every figure measured on it is too good",
)
SAME = Code(
    "D050",
    "warning",
    "a row that says the same as another of its split",
    "keep one of them, unless it is meant to count twice",
)
NEAR = Code(
    "D051",
    "warning",
    "a row that says nearly the same as another of its split",
    "keep one of them, unless both are meant",
)
CONFLICT = Code(
    "D053",
    "warning",
    "one text under two labels",
    "decide which label is right, or give the row both where a text may have several",
)


class Check(Base):
    """Equal words in equal order, or a Jaccard similarity of word shingles of 0.8 and more.

    Case, white space and punctuation do not count; labels are no part of what a row says.
    """

    codes: ClassVar[tuple[Code, ...]] = (LEAK, NEAR_LEAK, SAME, NEAR, CONFLICT)

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._similar = Similar(known.scratch)
        self._rows = array("I")
        self._labels = array("Q")

    @classmethod
    def digest(cls, rows: Sequence[Seen]) -> Any:
        """Numbers of the rows with a text, hashes of it and of their labels."""
        spoken = [seen for seen in rows if seen.record is not None]
        numbers = array("I", (seen.number for seen in spoken))
        labels = (0 if seen.label is None else short_hash(seen.label) for seen in spoken)
        return numbers, array("Q", labels), sketched([seen.whole for seen in spoken])

    def take(self, digest: Any) -> Iterable[tuple[int, Finding]]:
        """Notes them."""
        numbers, labels, sketches = digest
        self._rows.extend(numbers)
        self._labels.extend(labels)
        self._similar.take(sketches)
        return ()

    def close(self) -> Iterable[Finding]:
        """Equal ones first, each with the earlier row that it is like."""
        rows = np.array(self._rows, dtype=np.int64)
        splits = np.array(self.known.places.split_of, dtype=np.uint8)[rows]
        labels = np.array(self._labels, dtype=np.uint64)
        for pairs in self._similar.equal(splits):
            yield from self._told(rows, pairs.first, pairs.second, labels)
        for pairs in self._similar.near(splits):
            yield from self._told(rows, pairs.first, pairs.second, labels, pairs.similarity)

    def _told(
        self,
        rows: npt.NDArray[np.int64],
        first: npt.NDArray[np.int64],
        second: npt.NDArray[np.int64],
        labels: npt.NDArray[np.uint64],
        similarity: npt.NDArray[np.float64] | None = None,
    ) -> Iterable[Finding]:
        places = self.known.places
        for index in np.argsort(second, kind="stable").tolist():
            one, other = int(rows[first[index]]), int(rows[second[index]])
            here, there = places.split(other), places.split(one)
            exact = similarity is None
            said = "says the same as" if similarity is None else f"is {similarity[index]:.0%} like"
            like = _beside(places.at(one), places.at(other))
            if here != there:
                message = f"{said} {like}, which is in '{there}'"
                yield (LEAK if exact else NEAR_LEAK).at(places.at(other), message)
            elif exact and labels[first[index]] != labels[second[index]]:
                message = f"says the same as {like} and has another label"
                yield CONFLICT.at(places.at(other), message)
            else:
                yield (SAME if exact else NEAR).at(places.at(other), f"{said} {like}")


def _beside(there: str, here: str) -> str:
    """A place as it is said at another: the line alone within one file, else without folders."""
    (file, _, line), own = there.rpartition(":"), here.rpartition(":")[0]
    return f"line {line}" if file == own else f"{PurePath(file).name}:{line}"
