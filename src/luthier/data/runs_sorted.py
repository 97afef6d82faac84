"""Pairs of a key and a number in sorted runs on disk, read back in the order of their keys.

What a dictionary from key to numbers would hold, in as much memory as one wants to give.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.data.words_hashed import U32, U64

_PAIR = np.dtype([("key", "<u8"), ("number", "<u4")])
#: Pairs of a run, and of what is compared at once: 48 MB.
RUN = 4_000_000


class Runs:
    """Keys with numbers, more than memory holds; numbers stay below 2**32.

    Args:
        folder: where runs are written.
        name: of the files.
        run: pairs of one run.
    """

    def __init__(self, folder: Path, name: str, run: int = RUN) -> None:
        self._folder, self._name, self._size = folder, name, run
        self._waiting: list[npt.NDArray[Any]] = []
        self._count = 0
        self._runs: list[Path] = []
        self.total = 0

    def add(self, keys: U64, numbers: U32) -> None:
        """Adds pairs."""
        pairs = np.empty(len(keys), dtype=_PAIR)
        pairs["key"], pairs["number"] = keys, numbers
        self._waiting.append(pairs)
        self._count += len(pairs)
        self.total += len(pairs)
        if self._count >= self._size:
            self._write()

    def parts(self) -> Iterator[tuple[U64, U32]]:
        """All pairs by key, then number, a range of keys at a time; no key is in two ranges."""
        if not self._runs and not self._count:
            return
        if not self._runs:
            yield _sorted(np.concatenate(self._waiting))
            return
        self._write()
        runs = [np.memmap(path, dtype=_PAIR, mode="r") for path in self._runs]
        count = -(-self.total // self._size)
        at = [0] * len(runs)
        for part in range(1, count + 1):
            stop = np.uint64(min(part * 2**64 // count, 2**64 - 1))
            last = part == count
            ends = [len(run) if last else int(np.searchsorted(run["key"], stop)) for run in runs]
            pieces = [np.array(r[a:b]) for r, a, b in zip(runs, at, ends, strict=True) if b > a]
            at = ends
            if pieces:
                yield _sorted(np.concatenate(pieces))

    def _write(self) -> None:
        if not self._count:
            return
        pairs = np.concatenate(self._waiting)
        self._waiting, self._count = [], 0
        path = self._folder / f"{self._name}-{len(self._runs)}.run"
        pairs[np.argsort(pairs["key"], kind="stable")].tofile(path)
        self._runs.append(path)


def _sorted(pairs: npt.NDArray[Any]) -> tuple[U64, U32]:
    order = np.lexsort((pairs["number"], pairs["key"]))
    return pairs["key"][order], pairs["number"][order]
