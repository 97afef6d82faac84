"""k-means: clusters that are there are found, and the same ones each time."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.core.records import Floats
from luthier.data import kmeans
from luthier.data.kmeans import clusters


def blobs(sizes: list[int], width: int = 6, spread: float = 0.05) -> tuple[Floats, np.ndarray]:
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    means = np.eye(len(sizes), width)
    rows = means[owner] + spread * rng.standard_normal((len(owner), width))
    order = rng.permutation(len(owner))
    return rows[order].astype(np.float32), owner[order]


def agree(found: np.ndarray, truth: np.ndarray) -> bool:
    pairs = set(zip(found.tolist(), truth.tolist(), strict=True))
    return len(pairs) == len(set(truth.tolist())) == len(set(found.tolist()))


@pytest.mark.parametrize("whole", [20_000, 10])
def test_clusters_that_are_there_are_found(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lloyd's steps, and mini-batches where rows are many; a small one as well."""
    monkeypatch.setattr(kmeans, "_WHOLE", whole)
    monkeypatch.setattr(kmeans, "_BATCH", 64)
    monkeypatch.setattr(kmeans, "_AT_ONCE", 7)
    rows, truth = blobs([120, 80, 30, 5])
    found = clusters(rows, 4, 0)
    assert agree(found, truth)
    assert np.array_equal(found, clusters(rows, 4, 0))


def test_no_worse_than_a_trusted_library() -> None:
    from sklearn.cluster import KMeans

    rows = np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32)

    def inertia(owner: np.ndarray) -> float:
        return sum(
            float(((rows[owner == k] - rows[owner == k].mean(0)) ** 2).sum()) for k in set(owner)
        )

    theirs = KMeans(8, n_init=1, random_state=0).fit(rows)
    assert inertia(clusters(rows, 8, 0)) < 1.1 * float(theirs.inertia_)


def test_fewer_different_rows_than_clusters() -> None:
    rows = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    found = clusters(rows, 4, 0)
    assert len(set(found[:5])) == len(set(found[5:])) == 1
    assert found[0] != found[5]
    assert set(clusters(rows[:1], 3, 0)) == {0}
