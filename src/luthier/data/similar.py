"""Equal and nearly equal texts among millions, in bounded memory.

MinHash (Broder 1997) over word shingles, its signature cut into bands (Leskovec, Rajaraman &
Ullman, Mining of Massive Datasets, ch. 3): texts that agree in a whole band are compared by the
true Jaccard similarity of their shingles. Bands go to disk as sorted runs, shingles as a file of
32-bit hashes; memory holds a few bytes a text.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from luthier.data.runs_sorted import RUN, Runs
from luthier.data.words_hashed import I64, U32, U64, hashed, mixed

#: Similarity from which two texts are nearly the same.
THRESHOLD = 0.8
#: Bands of hashes: 0.98 of the pairs at the threshold meet in one, 0.12 of those at 0.5.
BANDS, ROWS = 16, 7
#: Shingles below which a text has no near duplicate at the threshold that is no equal one.
_LEAST = 4
#: Characters hashed at once, and shingles compared at once.
_BATCH, _COMPARED = 1 << 20, 1 << 22


def _drawn() -> tuple[U64, U64]:
    """Factors and terms of the hashes, odd and any."""
    rng = np.random.default_rng(1)
    factors = rng.integers(1, 2**63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2)
    return factors + np.uint64(1), rng.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64)


_FACTORS, _TERMS = _drawn()


@dataclass(frozen=True)
class Sketches:
    """Texts as hashes.

    Attributes:
        whole: ``[texts]`` of all words in order, 0 without any.
        shingles: those of all texts end to end.
        counts: ``[texts]`` how many of them are each text's.
        bands: ``[bands, long texts]`` of texts with enough shingles.
    """

    whole: U64
    shingles: U32
    counts: U32
    bands: U64


@dataclass(frozen=True)
class Pairs:
    """Texts found to be like earlier ones.

    Attributes:
        first: numbers of the earlier texts.
        second: numbers of the later ones.
        similarity: 1 for equal words in equal order.
    """

    first: I64
    second: I64
    similarity: npt.NDArray[np.float64]


class Similar:
    """Takes texts in order, then gives what is alike.

    Args:
        folder: for what does not fit into memory.
        run: pairs of key and number held in memory at once.
    """

    def __init__(self, folder: Path, run: int = RUN) -> None:
        self._equal = Runs(folder, "equal", run)
        self._bands = Runs(folder, "bands", run)
        self._counts = array("I")
        self._path = folder / "shingles"
        self._spill = self._path.open("wb")
        self._waiting: list[str] = []
        self._size = 0

    def add(self, text: str) -> None:
        """The next text; its number is how many came before."""
        self._waiting.append(text)
        self._size += len(text)
        if self._size >= _BATCH:
            self._flush()

    def equal(self, group_of: npt.NDArray[np.uint8]) -> Iterator[Pairs]:
        """Texts with the words of an earlier one.

        Each is paired once with the first of its own group and once with the first of another.

        Args:
            group_of: ``[texts]`` the group of each; a lower one counts as earlier.
        """
        self._flush()
        self._done = np.zeros((len(self._counts), 2), dtype=bool)
        for keys, numbers in self._equal.parts():
            first, second = _within(keys, numbers.astype(np.int64), group_of)
            across = (group_of[first] != group_of[second]).astype(np.int64)
            chosen = _once(second, across)
            self._done[second[chosen], across[chosen]] = True
            yield Pairs(first[chosen], second[chosen], np.ones(len(chosen)))

    def near(self, group_of: npt.NDArray[np.uint8]) -> Iterator[Pairs]:
        """Nearly equal texts, paired as by :meth:`equal`, which is asked first.

        What was found equal to one of its own group is left out; what was found like one of its
        own group, or of another, is not compared with more of them.
        """
        self.close()
        counts = np.array(self._counts, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)])
        if not starts[-1]:
            return
        shingles = np.memmap(self._path, dtype=np.uint32, mode="r")
        done = self._done
        copies = done[:, 0].copy()
        for keys, numbers in self._bands.parts():
            alone = ~copies[numbers]
            first, second = _within(keys[alone], numbers[alone].astype(np.int64), group_of)
            code = np.unique((first << 32) | second)
            first, second = code >> 32, code & 0xFFFFFFFF
            small, large = (f(counts[first], counts[second]) for f in (np.minimum, np.maximum))
            across = (group_of[first] != group_of[second]).astype(np.int64)
            open_ = (small >= THRESHOLD * large) & ~done[second, across]
            first, second, across = first[open_], second[open_], across[open_]
            alike = _jaccard(shingles, starts, first, second)
            # Equal sets of shingles in another order are no equal texts, but nearly so.
            kept = alike >= THRESHOLD
            chosen = np.flatnonzero(kept)[_once(second[kept], across[kept])]
            done[second[chosen], across[chosen]] = True
            yield Pairs(first[chosen], second[chosen], alike[chosen])

    def close(self) -> None:
        """Lets go of the file of shingles, where :meth:`near` is not asked."""
        self._spill.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        texts = self._waiting
        self._waiting, self._size = [], 0
        self.take(sketched(texts))

    def take(self, found: Sketches) -> None:
        """The next texts, by their sketches."""
        base = len(self._counts)
        numbers = np.arange(base, base + len(found.counts), dtype=np.uint32)
        spoken = found.whole != 0
        self._equal.add(found.whole[spoken], numbers[spoken])
        self._counts.extend(found.counts.tolist())
        found.shingles.tofile(self._spill)
        enough = numbers[found.counts >= _LEAST]
        for keys in found.bands:
            self._bands.add(keys, enough)


def sketched(texts: Sequence[str]) -> Sketches:
    """What :class:`Similar` keeps of texts; each depends on no other."""
    found = hashed(texts)
    counts = found.counts
    long = counts >= _LEAST
    bands = np.zeros((BANDS, int(long.sum())), dtype=np.uint64)
    if bands.size:
        values = found.shingles[np.repeat(long, counts)].astype(np.uint64)
        firsts = np.concatenate([[0], np.cumsum(counts[long])])[:-1]
        with np.errstate(over="ignore"):
            for band in range(BANDS):
                key = np.full(bands.shape[1], band + 1, dtype=np.uint64)
                for row in range(band * ROWS, (band + 1) * ROWS):
                    drawn = (values * _FACTORS[row] + _TERMS[row]) >> np.uint64(32)
                    least = np.minimum.reduceat(drawn, firsts)
                    key = mixed(key * np.uint64(0x100000001B3) + least)
                bands[band] = key
    return Sketches(found.whole, found.shingles, counts.astype(np.uint32), bands)


def _within(keys: U64, numbers: I64, group_of: npt.NDArray[np.uint8]) -> tuple[I64, I64]:
    """Pairs of numbers under one key: with the first, the first of the own group, the one before.

    Earlier is what is in an earlier group, then what has the lower number.
    """
    groups = group_of[numbers]
    order = np.lexsort((numbers, groups, keys))
    keys, numbers, groups = keys[order], numbers[order], groups[order]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = keys[1:] != keys[:-1]
    own = fresh.copy()
    own[1:] |= groups[1:] != groups[:-1]
    index = np.arange(len(keys))
    heads = numbers[np.maximum.accumulate(np.where(fresh, index, 0))]
    owners = numbers[np.maximum.accumulate(np.where(own, index, 0))]
    first = np.concatenate([heads[~fresh], owners[~own], numbers[:-1][~fresh[1:]]])
    second = np.concatenate([numbers[~fresh], numbers[~own], numbers[1:][~fresh[1:]]])
    flip = (group_of[first] == group_of[second]) & (first > second)
    first, second = np.where(flip, second, first), np.where(flip, first, second)
    code = np.unique((first << 32) | second)
    return code >> 32, code & 0xFFFFFFFF


def _once(second: I64, across: I64) -> I64:
    """Indices of the first pair of each later text within its group, and across groups."""
    return np.sort(np.unique(second * 2 + across, return_index=True)[1])


def _jaccard(shingles: U32, starts: I64, first: I64, second: I64) -> npt.NDArray[np.float64]:
    """True similarity of the sets of each pair."""
    sizes = (starts[first + 1] - starts[first]) + (starts[second + 1] - starts[second])
    alike = np.zeros(len(first))
    at = 0
    ends = np.cumsum(sizes)
    while at < len(first):
        done = ends[at - 1] if at else 0
        stop = max(at + 1, int(np.searchsorted(ends, done + _COMPARED)))
        chosen = slice(at, stop)
        keys = np.concatenate([_tagged(shingles, starts, side[chosen]) for side in (first, second)])
        keys.sort()
        both = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
        shared = np.bincount(both.astype(np.int64), minlength=stop - at)
        alike[chosen] = shared / np.maximum(1, sizes[chosen] - shared)
        at = stop
    return alike


def _tagged(shingles: U32, starts: I64, numbers: I64) -> U64:
    """The shingles of these texts end to end, each under its place in the list."""
    sizes = starts[numbers + 1] - starts[numbers]
    tags = np.repeat(np.arange(len(numbers)), sizes)
    within = np.arange(len(tags)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    values = shingles[np.repeat(starts[numbers], sizes) + within].astype(np.uint64)
    tagged: U64 = (tags.astype(np.uint64) << np.uint64(32)) | values
    return tagged
