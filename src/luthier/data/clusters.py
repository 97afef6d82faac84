"""Rows that belong together, so that a split keeps them on one side."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from luthier.core.errors import DataError
from luthier.core.records import Origin, Record
from luthier.data.contents import whole
from luthier.data.similar import Similar

#: What ``data.group`` may say beside a column's name: rows that say nearly the same, or nothing.
NEAR, NONE = "near_duplicates", "none"


class Clusters:
    """Rows linked to each other, directly or through others.

    Args:
        count: of the rows.
    """

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def link(self, first: int, second: int) -> None:
        """Puts two rows and all that is linked to them into one cluster."""
        low, high = sorted((self._root(first), self._root(second)))
        self._parents[high] = low

    def roots(self) -> list[int]:
        """The first row of each row's cluster."""
        return [self._root(index) for index in range(len(self._parents))]

    def _root(self, index: int) -> int:
        parents = self._parents
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index


class Near:
    """Nearly equal texts among records; see :class:`luthier.data.similar.Similar`."""

    def __init__(self, records: Sequence[Record], similar: Similar) -> None:
        self._count, self._similar = len(records), similar
        for record in records:
            similar.add(whole(record))

    def clusters(self) -> Clusters:
        """Links by a Jaccard similarity of word shingles of 0.8 or more.

        A text is compared with those that share a band of hashes, and linked to one earlier text
        at least where there is one.
        """
        found = Clusters(self._count)
        for first, second in self._pairs(np.zeros(self._count, dtype=np.uint8)):
            found.link(first, second)
        return found

    def across(self, held: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Pairs of which one is held out and the other is not."""
        side = np.zeros(self._count, dtype=np.uint8)
        side[list(held)] = 1
        return ((a, b) for a, b in self._pairs(side) if side[a] != side[b])

    def _pairs(self, side: Any) -> Iterator[tuple[int, int]]:
        for pairs in chain(self._similar.equal(side), self._similar.near(side)):
            yield from zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)


@contextmanager
def near(records: Sequence[Record]) -> Iterator[Near]:
    """Their near duplicates, while open: what does not fit into memory lies in a folder."""
    with tempfile.TemporaryDirectory(prefix="luthier-near-") as scratch:
        yield Near(records, Similar(Path(scratch)))


def near_clusters(records: Sequence[Record]) -> list[int]:
    """The number of the first record that each one is linked to by nearly equal texts."""
    with near(records) as found:
        return found.clusters().roots()


def by_column(
    records: Sequence[Record], column: str, values: Mapping[Origin, Any]
) -> Iterable[tuple[int, int]]:
    """Links between rows that say the same in a column; a row without a value stands alone.

    Args:
        records: what is to be split.
        column: its name in the data.
        values: of that column by row.

    Raises:
        DataError: no row has the column.
    """
    found = [values.get(record.origin) for record in records]
    if records and all(value is None for value in found):
        raise DataError(
            f"data.group: no row has a column '{column}' that is filled in",
            records[0].origin.source,
            f"name a column of the data, {NEAR} or {NONE}",
            "columns",
        )
    first: dict[Hashable, int] = {}
    return [
        (first.setdefault(str(value), index), index)
        for index, value in enumerate(found)
        if value is not None
    ]
