"""Clusters of vectors, in numpy: seeds by distance, Lloyd's steps, mini-batches for many rows.

``N`` rows, ``K`` clusters, ``H`` columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from luthier.core.records import Floats, Ints

#: Rows up to which every step takes all of them; rows of a mini-batch; steps, and last ones of all.
_WHOLE, _BATCH, _STEPS, _LAST = 20_000, 4_096, 25, 3
#: Of the squared distance, in the weights of the seeds: 1 is k-means++, more seeks what lies apart.
_POWER = 3
#: Rows among which the seeds are drawn, and rows compared at once.
_SEEDED, _AT_ONCE = 20_000, 8_192


def clusters(vectors: Floats, count: int, seed: int) -> Ints:
    """The cluster of every row, ``[N]``; the same for the same arguments.

    Minimises the squared distances to the clusters' means by Lloyd's steps (Lloyd 1982); beyond
    20,000 rows by mini-batches (Sculley 2010) and three steps of all. Seeds are drawn by a power
    of their distance to the ones before (Balcan et al. 2018, arXiv 1809.06987), the sixth: with
    the second, which is k-means++ (Arthur & Vassilvitskii 2007), few rows that lie apart from all
    others seldom get one.

    Args:
        vectors: ``[N, H]``.
        count: clusters, at least 1; a seed that no row differs from is left out.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    drawn = vectors
    if len(vectors) > _SEEDED:
        drawn = vectors[np.sort(rng.choice(len(vectors), _SEEDED, replace=False))]
    means = _seeds(drawn, count, rng)
    few = len(vectors) <= _WHOLE
    if not few:
        weights = np.zeros(len(means))
        for _ in range(_STEPS):
            rows = vectors[rng.choice(len(vectors), _BATCH, replace=False)]
            means = _moved(rows, means, weights)
    for _ in range(_STEPS if few else _LAST):
        moved = _moved(vectors, means, np.zeros(len(means)))
        if np.allclose(moved, means, atol=1e-6):
            break
        means = moved
    return _nearest(vectors, means)


def _seeds(vectors: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Rows, each drawn by its distance to the nearest one before."""
    chosen = [int(rng.integers(len(vectors)))]
    distances = np.full(len(vectors), np.inf)
    while len(chosen) < min(count, len(vectors)):
        apart = ((vectors - vectors[chosen[-1]]) ** 2).sum(axis=1, dtype=np.float64)
        distances = np.minimum(distances, apart)
        distances[chosen] = 0
        if distances.max() <= 1e-9:  # every row is one of the seeds
            break
        weights = (distances / distances.max()) ** _POWER
        chosen.append(int(rng.choice(len(vectors), p=weights / weights.sum())))
    return vectors[chosen].copy()


def _moved(rows: Floats, means: Floats, weights: npt.NDArray[np.float64]) -> Floats:
    """Means of the rows nearest to each, and of the ``weights`` rows before them; these grow."""
    owner = _nearest(rows, means)
    counts = np.bincount(owner, minlength=len(means))
    order = np.argsort(owner, kind="stable")
    held = np.flatnonzero(counts)
    starts = np.cumsum(counts)[held] - counts[held]
    sums = means * weights[:, None]
    sums[held] += np.add.reduceat(rows[order], starts, axis=0)
    weights += counts
    moved = means.copy()
    some = weights > 0
    moved[some] = sums[some] / weights[some, None]
    return moved


def _nearest(vectors: Floats, means: Floats) -> Ints:
    """The nearest mean of every row; distances as |m|^2 - 2 v.m, in pieces."""
    found = np.empty(len(vectors), dtype=np.int64)
    lengths = (means**2).sum(axis=1)
    for at in range(0, len(vectors), _AT_ONCE):
        rows = vectors[at : at + _AT_ONCE]
        found[at : at + _AT_ONCE] = np.argmin(lengths - 2 * (rows @ means.T), axis=1)
    return found
