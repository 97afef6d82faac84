"""Columns that the steps do not change (a teacher's top logits), asked for once and kept on disk.

``R`` rows of a table over all examples. Every later epoch, a resumed run and the next run with the
same teacher, tokens and settings read them from the cache, as memory maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from luthier.core import cache
from luthier.core.contracts import FrozenColumns, Models
from luthier.core.records import Batch, Example

Arrays = dict[str, npt.NDArray[Any]]


def frozen_columns(
    examples: Sequence[Example],
    objective: FrozenColumns,
    models: Models,
    cut: Callable[[Sequence[int]], list[list[int]]],
    collate: Callable[[Sequence[Example]], Batch],
    place: Path,
) -> Arrays:
    """``HEAD.COLUMN`` -> ``[R, ...]``, row by row in the examples' order.

    Args:
        examples: all that the run will ever show.
        objective: what asks.
        models: those that answer; asked only where the cache has nothing.
        cut: sizes to micro-batches.
        collate: examples to a batch on the device.
        place: entry of the cache to keep them in.
    """
    if not place.is_dir():
        with cache.made(place) as folder:
            _write(folder, examples, objective, models, cut, collate)
    return {
        path.name.removesuffix(".npy"): np.load(path, mmap_mode="r", allow_pickle=False)
        for path in sorted(place.glob("*.npy"))
    }


def _write(
    folder: Path,
    examples: Sequence[Example],
    objective: FrozenColumns,
    models: Models,
    cut: Callable[[Sequence[int]], list[list[int]]],
    collate: Callable[[Sequence[Example]], Batch],
) -> None:
    """Micro-batch by micro-batch into files that are mapped, never held whole."""
    sizes: list[int] = []
    counts: dict[str, list[int]] = {}
    for example in examples:
        sizes.append(example.size)
        for head, table in example.targets.items():
            counts.setdefault(head, []).append(len(next(iter(table.values()))))
    starts = {head: np.cumsum([0, *rows]) for head, rows in counts.items()}
    files: dict[str, Any] = {}
    for indices in cut(sizes):
        if not indices:
            continue
        with torch.no_grad():
            found = objective.columns(models, collate([examples[i] for i in indices]))
        for head, columns in found.items():
            places = np.concatenate([np.arange(*starts[head][i : i + 2]) for i in indices])
            for name, values in _plain(columns).items():
                assert len(values) == len(places), f"{head}.{name}: a row too many or too few"
                file = f"{head}.{name}"
                if file not in files:
                    shape = (int(starts[head][-1]), *values.shape[1:])
                    path = folder / f"{file}.npy"
                    files[file] = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
                files[file][places] = values
    assert files, "no example"
    for made in files.values():
        made.flush()


def _plain(columns: Mapping[str, Tensor]) -> Arrays:
    """As arrays; token ids fit into 32 bits, and 16-bit floats are widened."""
    plain = {}
    for name, column in columns.items():
        if column.dtype == torch.int64:
            column = column.to(torch.int32)
        elif column.dtype in (torch.bfloat16, torch.float16):
            column = column.float()
        plain[name] = column.detach().cpu().numpy()
    return plain
