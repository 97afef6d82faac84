"""Texts longer than the context as windows that each look like a whole text.

The tokens that stand around a text stand around every window, and windows are cut where the
objective says that nothing is torn: between words, never inside of an entity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from luthier.core.records import Example, Ints


def windows(example: Example, limit: int, frame: frozenset[int], cuts: Ints) -> list[Example]:
    """Consecutive windows of an example of one segment; none where nothing fits at all.

    Args:
        example: its tables have a ``position``.
        limit: tokens of a window, those around it included.
        frame: tokens that stand around a text.
        cuts: positions before which a window may end, ascending; where none is near enough, a
            window ends where it is full.
    """
    segment = example.segments[0]
    inside = np.flatnonzero(~np.isin(segment.tokens, list(frame)))
    if not len(inside):
        return []
    first, end = int(inside[0]), int(inside[-1]) + 1
    around = np.r_[0:first], np.r_[end : len(segment.tokens)]
    room = limit - len(around[0]) - len(around[1])
    if room < 1:
        return []
    made = []
    for start, stop in _spans(first, end, room, cuts):
        take = np.concatenate([around[0], np.arange(start, stop), around[1]])
        types = segment.token_types
        targets = {}
        for name, table in example.targets.items():
            rows = (table["position"] >= start) & (table["position"] < stop)
            targets[name] = {key: column[rows] for key, column in table.items()}
            targets[name]["position"] = targets[name]["position"] - start + first
        shorter = replace(
            segment,
            tokens=segment.tokens[take],
            token_types=None if types is None else types[take],
        )
        made.append(replace(example, segments=(shorter,), targets=targets))
    return made


def _spans(first: int, end: int, room: int, cuts: Ints) -> Iterator[tuple[int, int]]:
    start = first
    while start < end:
        stop = min(start + room, end)
        near = cuts[(cuts > start) & (cuts <= stop)]
        if stop < end and len(near):
            stop = int(near[-1])
        yield start, stop
        start = stop
