"""So many rows that stand for all: each class its share, or each cluster of like texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np

from luthier.core.contracts_data import DataModels
from luthier.core.recipe_parts import SubsetSpec
from luthier.core.records import Floats, Ints, Record
from luthier.data.contents import whole
from luthier.data.kmeans import clusters
from luthier.data.split import split
from luthier.data.words_hashed import U64, mixed, words_of

Say = Callable[[str], None]

_NUMBER = re.compile(r"\d+")
#: Columns that hashed words are folded into; texts hashed at once; most clusters unless told.
_COLUMNS, _TEXTS, _CLUSTERS = 512, 1 << 14, 512


def subset(
    records: Sequence[Record],
    spec: SubsetSpec,
    seed: int,
    say: Say,
    models: DataModels | None,
    sources: Sequence[int] | None = None,
) -> list[int]:
    """Indices of the rows that are kept, in order; see :class:`SubsetSpec`.

    Args:
        records: more than ``spec.rows`` of them.
        spec: how many, and what keeps its share.
        seed: another one draws other rows.
        say: takes a line for the user.
        models: opens the encoder where ``spec`` names one.
        sources: each row's entry in a mixture, which keeps its share among classes.
    """
    if spec.by == "classes":
        return split(records, spec.rows / len(records), seed, sources=sources)[1]
    texts = [whole(record) for record in records]
    if spec.model is None:
        vectors = weighted_words(texts)
    else:
        assert models is not None, "nothing opens the encoder"
        vectors = models.embed(spec.model, texts, say)
    wanted = min(spec.clusters or max(2, min(spec.rows // 2, _CLUSTERS)), spec.rows)
    owner = clusters(vectors, wanted, seed)
    sizes = np.bincount(owner)
    how = f"vectors of {spec.model}" if spec.model else "weighted words"
    say(
        f"{(sizes > 0).sum():,} clusters of texts by {how}, the smallest of "
        f"{sizes[sizes > 0].min():,} rows, the largest of {sizes.max():,} rows"
    )
    return _drawn(texts, owner, spec.rows, seed)


def _drawn(texts: Sequence[str], owner: Ints, count: int, seed: int) -> list[int]:
    """Rows of each cluster by its share, one at least, ranked by a keyed hash of their content."""
    key = blake2b(str(seed).encode()).digest()
    ranks = [blake2b(t.encode("utf-8", "replace"), key=key, digest_size=16).digest() for t in texts]
    members: dict[int, list[int]] = {}
    for index in sorted(range(len(texts)), key=lambda i: (ranks[i], i)):
        members.setdefault(int(owner[index]), []).append(index)
    groups = sorted(members.values(), key=lambda group: ranks[group[0]])
    exact = [count * len(group) / len(texts) for group in groups]
    quotas = [max(1, int(each)) for each in exact]
    while sum(quotas) != count:  # one more where most is lacking, one less where most is over
        over = sum(quotas) > count
        gaps = [quota - each for quota, each in zip(quotas, exact, strict=True)]
        if over:
            spare = [i for i, quota in enumerate(quotas) if quota > 1]
            quotas[max(spare, key=lambda i: gaps[i])] -= 1
        else:
            spare = [i for i, quota in enumerate(quotas) if quota < len(groups[i])]
            quotas[min(spare, key=lambda i: gaps[i])] += 1
    taken = (group[:quota] for group, quota in zip(groups, quotas, strict=True))
    return sorted(index for group in taken for index in group)


def weighted_words(texts: Sequence[str]) -> Floats:
    """Texts as vectors of length one, ``[texts, 512]``: TF-IDF of words, folded by their hash.

    ``(1 + log tf) * (1 + log((1 + N) / (1 + df)))`` (Sparck Jones 1972; Salton & Buckley 1988),
    each word added to one column with a sign of its own (Weinberger et al. 2009, arXiv
    0902.2206). Numbers, and words of one text alone, make no texts alike and are left out; a text
    without any other word is the zero vector.
    """
    parts = [_counted(texts[at : at + _TEXTS]) for at in range(0, len(texts), _TEXTS)]
    known, met = np.unique(np.concatenate([keys for _, keys, _ in parts]), return_counts=True)
    inverse = np.where(met > 1, 1 + np.log((1 + len(texts)) / (1 + met)), 0)
    vectors = np.zeros((len(texts), _COLUMNS), dtype=np.float32)
    for number, (rows, keys, counts) in enumerate(parts):
        weights = (1 + np.log(counts)) * inverse[np.searchsorted(known, keys)]
        folded = mixed(keys)
        sign = np.where(folded >> np.uint64(63), 1.0, -1.0)
        place = rows * _COLUMNS + (folded % np.uint64(_COLUMNS)).astype(np.int64)
        here = vectors[number * _TEXTS : (number + 1) * _TEXTS]
        made = np.bincount(place, weights * sign, here.size).reshape(here.shape)
        here[:] = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
    return vectors


def _counted(texts: Sequence[str]) -> tuple[Ints, U64, Ints]:
    """Of each text its different words, and how often each stands in it."""
    hashes, rows = words_of([_NUMBER.sub(" ", text) for text in texts])
    order = np.lexsort((hashes, rows))
    hashes, rows = hashes[order], rows[order]
    fresh = np.ones(len(hashes), dtype=bool)
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    starts = np.flatnonzero(fresh)
    counts = np.diff(np.append(starts, len(hashes)))
    return rows[fresh], hashes[fresh], counts
