"""Rows that belong together, so that a split keeps them on one side."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from luthier.core.errors import DataError
from luthier.core.records import Origin, Record
from luthier.data.contents import whole
from luthier.data.similar import Similar

#: The group of a recipe that is no column.
NEAR = "near_duplicates"


def together(records: Sequence[Record], group: str, values: Mapping[Origin, Any]) -> list[Hashable]:
    """A key for each record; records of one key belong together.

    Args:
        records: what is to be split.
        group: a column's name, or :data:`NEAR`.
        values: of that column by row; a row without one stands alone.

    Raises:
        DataError: no row has the column.
    """
    if group == NEAR:
        return list(near_clusters(records))
    found = [values.get(record.origin) for record in records]
    if records and all(value is None for value in found):
        raise DataError(
            f"data.group: no row has a column '{group}' that is filled in",
            records[0].origin.source,
            f"name a column of the data, or {NEAR}",
            "columns",
        )
    return [("row", i) if value is None else str(value) for i, value in enumerate(found)]


def near_clusters(records: Sequence[Record]) -> list[int]:
    """The number of the first record that each one is linked to by nearly equal texts.

    Links are those of :class:`luthier.data.similar.Similar`: a Jaccard similarity of word
    shingles of 0.8 or more, to one earlier text at least where there is one.
    """
    parents = list(range(len(records)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    with tempfile.TemporaryDirectory(prefix="luthier-near-") as scratch:
        similar = Similar(Path(scratch))
        for record in records:
            similar.add(whole(record))
        one = np.zeros(len(records), dtype=np.uint8)
        for pairs in chain(similar.equal(one), similar.near(one)):
            for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
                low, high = sorted((root(first), root(second)))
                parents[high] = low
    return [root(index) for index in range(len(records))]
