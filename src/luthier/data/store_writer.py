"""Examples written to disk piece by piece, so that memory holds one piece at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from luthier.data.store import ExampleStore, is_ends

Array = npt.NDArray[Any]


class StoreWriter:
    """A folder for :meth:`luthier.data.store.ExampleStore.load`, filled as a context.

    Arrays grow at their ends. The header of an ``.npy`` file keeps room for a longer one, and is
    written again with the final length.

    Args:
        folder: empty.

    Attributes:
        count: examples so far.
    """

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._kinds: dict[str, tuple[Any, tuple[int, ...]]] = {}
        self._lengths: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._open = ExitStack()

    def add(self, store: ExampleStore) -> None:
        """The next examples; all have the same tables, token types that are missing are 0."""
        if not len(store):
            return
        self.count += len(store)
        places = [self._sources.setdefault(name, len(self._sources)) for name in store.sources]
        arrays = dict(store.arrays)
        arrays["origin_source"] = np.array(places, dtype=np.int32)[arrays["origin_source"]]
        if "token_types" in self._kinds:
            arrays.setdefault("token_types", np.zeros(store.tokens, dtype=np.int8))
        elif "token_types" in arrays and (before := self._lengths.get("tokens", 0)):
            self._append("token_types", np.zeros(before, dtype=np.int8))
        for name, array in arrays.items():
            self._append(name, array + self._ends.get(name, 0) if is_ends(name) else array)
            if is_ends(name):
                self._ends[name] = self._ends.get(name, 0) + int(array[-1])

    def beside(self, files: Mapping[str, str]) -> None:
        """Writes small files beside the arrays."""
        for name, text in files.items():
            (self._folder / name).write_text(text, encoding="utf-8")

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._open:
            if kind is None:
                for name, stream in self._files.items():
                    stream.seek(0)
                    self._head(name, self._lengths[name])
                self.beside({"sources.json": json.dumps(list(self._sources))})

    def _append(self, name: str, array: Array) -> None:
        if name not in self._files:
            path = self._folder / f"{name}.npy"
            self._files[name] = self._open.enter_context(path.open("wb"))
            self._kinds[name], self._lengths[name] = (array.dtype, array.shape[1:]), 0
            self._head(name, 0)
        assert self._kinds[name] == (array.dtype, array.shape[1:]), f"'{name}' of two kinds"
        np.ascontiguousarray(array).tofile(self._files[name])
        self._lengths[name] += len(array)

    def _head(self, name: str, length: int) -> None:
        dtype, shape = self._kinds[name]
        described = np.lib.format.dtype_to_descr(dtype)
        head = {"descr": described, "fortran_order": False, "shape": (length, *shape)}
        np.lib.format.write_array_header_1_0(self._files[name], head)
