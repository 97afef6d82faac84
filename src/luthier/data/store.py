"""Many examples as a few flat arrays: cheap to keep, to cache on disk, and to index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from luthier.core import cache
from luthier.core.records import Example, Ints, Origin, Segment

Arrays = dict[str, npt.NDArray[Any]]

_STREAMS = ("main", "source")


class ExampleStore(Sequence[Example]):
    """Examples in flat arrays, built once, read by index; arrays may be memory-mapped.

    Arrays: ``tokens [N]``, ``segment_ends [S]``, ``segment_parents [S]`` (-1 for none),
    ``segment_sources [S]``, ``segment_streams [S]``, ``example_ends [B]`` in segments,
    ``origin_source [B]``, ``origin_line [B]``, ``token_types [N]`` where there are any, and for
    each table ``rows.HEAD [B]`` (ends) and ``HEAD.COLUMN [R, ...]``.
    """

    def __init__(self, arrays: Arrays, sources: Sequence[str]) -> None:
        self.arrays = arrays
        self.sources = tuple(sources)
        self.heads: dict[str, list[str]] = {}
        for name in arrays:
            head, dot, column = name.partition(".")
            if dot and head != "rows":
                self.heads.setdefault(head, []).append(column)

    @classmethod
    def build(cls, examples: Iterable[Example]) -> ExampleStore:
        """Examples to arrays."""
        parts: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        sources: dict[str, int] = {}
        tokens = segments = 0
        rows: dict[str, int] = {}
        types: list[Any] = []
        for example in examples:
            for segment in example.segments:
                tokens += len(segment.tokens)
                parts["tokens"].append(segment.tokens)
                parts["segment_ends"].append(tokens)
                parts["segment_parents"].append(-1 if segment.parent is None else segment.parent)
                parts["segment_sources"].append(-1 if segment.source is None else segment.source)
                parts["segment_streams"].append(_STREAMS.index(segment.stream))
                types.append(segment.token_types)
            segments += len(example.segments)
            parts["example_ends"].append(segments)
            parts["origin_source"].append(sources.setdefault(example.origin.source, len(sources)))
            parts["origin_line"].append(example.origin.line)
            for head, table in example.targets.items():
                for name, column in table.items():
                    parts.setdefault(f"{head}.{name}", []).append(column)
                rows[head] = rows.get(head, 0) + len(next(iter(table.values())))
                parts.setdefault(f"rows.{head}", []).append(rows[head])
        return cls(_join(parts, types), list(sources))

    @classmethod
    def joined(cls, stores: Sequence[ExampleStore]) -> ExampleStore:
        """The examples of several stores, which have the same tables, end to end."""
        stores = [store for store in stores if len(store)] or [cls.build(())]
        sources = list(dict.fromkeys(name for store in stores for name in store.sources))
        arrays: Arrays = {}
        for name in dict.fromkeys(name for store in stores for name in store.arrays):
            pieces, ends = [], 0
            for store in stores:
                piece = store._column(name, sources)
                pieces.append(piece + ends if is_ends(name) else piece)
                if is_ends(name):
                    ends = int(pieces[-1][-1]) if len(pieces[-1]) else ends
            arrays[name] = np.concatenate(pieces)
        return cls(arrays, sources)

    def _column(self, name: str, sources: Sequence[str]) -> npt.NDArray[Any]:
        """An array as a store with these sources has it; token types that are missing are 0."""
        if name == "origin_source":
            places = np.array([sources.index(each) for each in self.sources], dtype=np.int32)
            column: npt.NDArray[Any] = places[self.arrays[name]]
            return column
        if name == "token_types" and name not in self.arrays:
            return np.zeros(self.tokens, dtype=np.int8)
        return self.arrays[name]

    def save(self, folder: Path, beside: Mapping[str, str] | None = None) -> None:
        """Writes the arrays and files ``beside`` them, through a temporary folder and a rename."""
        with cache.made(folder) as whole:
            for name, array in self.arrays.items():
                np.save(whole / f"{name}.npy", array, allow_pickle=False)
            (whole / "sources.json").write_text(json.dumps(self.sources), encoding="utf-8")
            for name, text in (beside or {}).items():
                (whole / name).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ExampleStore:
        """Opens saved arrays as memory maps: nothing is read before it is asked for."""
        arrays = {
            path.name.removesuffix(".npy"): np.load(path, mmap_mode="r", allow_pickle=False)
            for path in sorted(folder.glob("*.npy"))
        }
        sources = json.loads((folder / "sources.json").read_text(encoding="utf-8"))
        return cls(arrays, sources)

    @property
    def sizes(self) -> Ints:
        """Tokens of each example."""
        ends = self.arrays["segment_ends"][self.arrays["example_ends"] - 1]
        sizes: Ints = np.diff(ends, prepend=0)
        return sizes

    def ends(self, stream: str) -> Ints:
        """Where each example's tokens of a stream end, counted over the whole store."""
        a = self.arrays
        own = a["segment_streams"] == _STREAMS.index(stream)
        lengths = np.where(own, np.diff(a["segment_ends"], prepend=0), 0)
        found: Ints = np.cumsum(lengths)[a["example_ends"] - 1]
        return found

    @property
    def tokens(self) -> int:
        """Tokens of all examples."""
        return len(self.arrays["tokens"])

    def rows(self, head: str) -> int:
        """Targets of a head over all examples."""
        ends = self.arrays.get(f"rows.{head}")
        return int(ends[-1]) if ends is not None and len(ends) else 0

    def origin(self, index: int) -> Origin:
        """Where an example stood."""
        a = self.arrays
        return Origin(self.sources[int(a["origin_source"][index])], int(a["origin_line"][index]))

    def __len__(self) -> int:
        return len(self.arrays["example_ends"])

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Example(self._segments(index), self._tables(index), self.origin(index))

    def _segments(self, index: int) -> tuple[Segment, ...]:
        a = self.arrays
        types = a.get("token_types")
        made = []
        for s in range(*_span(a["example_ends"], index)):
            begin, end = _span(a["segment_ends"], s)
            parent, source = int(a["segment_parents"][s]), int(a["segment_sources"][s])
            made.append(
                Segment(
                    np.asarray(a["tokens"][begin:end], dtype=np.int64),
                    None if parent < 0 else parent,
                    None if source < 0 else source,
                    "source" if a["segment_streams"][s] else "main",
                    None if types is None else np.asarray(types[begin:end], dtype=np.int64),
                )
            )
        return tuple(made)

    def _tables(self, index: int) -> dict[str, dict[str, npt.NDArray[Any]]]:
        tables = {}
        for head, columns in self.heads.items():
            begin, end = _span(self.arrays[f"rows.{head}"], index)
            tables[head] = {c: _wide(self.arrays[f"{head}.{c}"][begin:end]) for c in columns}
        return tables


_COLUMNS = {
    "tokens": np.int32,
    "segment_ends": np.int64,
    "segment_parents": np.int32,
    "segment_sources": np.int32,
    "segment_streams": np.int8,
    "example_ends": np.int64,
    "origin_source": np.int32,
    "origin_line": np.int64,
}


#: Columns that hold where something ends, counted over the whole store.


def is_ends(name: str) -> bool:
    """Whether an array says where its examples', or their parts', entries in another one end."""
    return name in ("segment_ends", "example_ends") or name.startswith("rows.")


def _join(parts: dict[str, list[Any]], types: list[Any]) -> Arrays:
    arrays: Arrays = {}
    for name, values in parts.items():
        if name == "tokens" or (name not in _COLUMNS and not name.startswith("rows.")):
            joined = np.concatenate(values) if values else np.empty(0)
            if joined.dtype == np.int64:  # token ids and places fit; a copy widens them again
                joined = joined.astype(np.int32)
        else:
            joined = np.array(values, dtype=np.int64)
        arrays[name] = joined.astype(_COLUMNS.get(name, joined.dtype))
    if any(t is not None for t in types):
        lengths = np.diff(arrays["segment_ends"], prepend=0)
        filled = [
            np.zeros(n, dtype=np.int8) if t is None else t.astype(np.int8)
            for t, n in zip(types, lengths, strict=True)
        ]
        arrays["token_types"] = np.concatenate(filled)
    return arrays


def _wide(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.array(column, dtype=np.int64 if column.dtype == np.int32 else column.dtype)


def _span(ends: npt.NDArray[Any], index: int) -> tuple[int, int]:
    return (int(ends[index - 1]) if index else 0), int(ends[index])
