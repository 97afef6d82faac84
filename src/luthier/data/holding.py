"""Which rows are held out: drawn by content, near duplicates never on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core.errors import DataError
from luthier.core.records import Origin, Record
from luthier.data.clusters import NEAR, NONE, Clusters, Near, by_column, near
from luthier.data.split import split

#: Draws before the pairs that are left are given up: each joins the clusters of the last one's.
_DRAWS = 20


@dataclass(frozen=True)
class Held:
    """A split.

    Attributes:
        train: indices to train on, in order.
        held: indices to measure with, in order.
        said: how rows were kept together, for the user; empty where there is nothing to say.
    """

    train: list[int]
    held: list[int]
    said: str


def hold_out(
    records: Sequence[Record],
    share: float,
    seed: int,
    group: str | None,
    values: Mapping[Origin, Any],
    sources: Sequence[int] | None = None,
) -> Held:
    """Sets a share of the rows aside for validation; see :func:`luthier.data.split.split`.

    Rows of one cluster are never divided. Clusters are the near duplicates of the check for
    leaks, and, where a column is named, the rows of one value of it as well.

    Args:
        records: what to divide.
        share: between 0 and 1.
        seed: another one draws other rows.
        group: a column's name, ``near_duplicates``, ``none`` for equal rows alone, or ``None``
            for near duplicates as far as that leaves something to hold out.
        values: of that column by row.
        sources: each record's source in a mixture, which gives its share of its own.

    Raises:
        DataError: nothing is left on one side, or no row has the column.
    """
    if group == NONE or len(records) < 2:
        return Held(*split(records, share, seed, sources=sources), "")
    with near(records) as alike:
        clusters = alike.clusters()
        if group not in (None, NEAR):
            for first, second in by_column(records, str(group), values):
                clusters.link(first, second)
        try:
            return _drawn(records, share, seed, clusters, alike, group, sources)
        except DataError:
            if group is not None:
                raise
    return Held(
        *split(records, share, seed, sources=sources),
        "rows are too alike to keep near duplicates on one side: what is held out resembles what "
        "is learned",
    )


def _drawn(
    records: Sequence[Record],
    share: float,
    seed: int,
    clusters: Clusters,
    alike: Near,
    group: str | None,
    sources: Sequence[int] | None,
) -> Held:
    """Drawn again with every pair that was found on two sides linked, until there is none."""
    for _ in range(_DRAWS):
        roots = clusters.roots()
        train, held = split(records, share, seed, roots, sources)
        apart = list(alike.across(held))
        if not apart:
            break
        for first, second in apart:
            clusters.link(first, second)
    sizes = Counter(roots)
    together = sum(size for size in sizes.values() if size > 1)
    said = ""
    if group not in (None, NEAR):
        said = f"{len(sizes):,} groups by {group} and near duplicates; none is on both sides"
    elif together:
        clusters_ = sum(size > 1 for size in sizes.values())
        said = (
            f"{together:,} rows in {clusters_:,} groups that say nearly the same; none is divided"
        )
    return Held(train, held, said)
