"""Examples to batches: laid end to end (packed), or one row a root-to-leaf path (padded)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from luthier.core.errors import DataError
from luthier.core.records import REFERENCES, Batch, Example, SegmentTable

Layout = Literal["packed", "padded"]


def micro_batches(sizes: Sequence[int], budget: int, ranks: int = 1) -> list[list[int]]:
    """Divides a step's examples into micro-batches of at most ``budget`` tokens.

    The longest go first, each to the emptiest micro-batch, so that all take about equally long.
    Their number is a multiple of ``ranks``; some may be empty. No example is split, none lost.

    Args:
        sizes: tokens of each example.
        budget: bound on the tokens of a micro-batch; no single size may pass it.
        ranks: processes that share the step.

    Returns:
        Indices into ``sizes``, ascending within each micro-batch by length, then index.
    """
    assert all(size <= budget for size in sizes), "an example larger than the token budget"
    count = max(1, -(-sum(sizes) // budget))
    by_length = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    while True:
        count = -(-count // ranks) * ranks
        loads = [(0, number) for number in range(count)]
        bins: list[list[int]] = [[] for _ in range(count)]
        for index in by_length:
            load, number = loads[0]
            heapq.heapreplace(loads, (load + sizes[index], number))
            bins[number].append(index)
        if max(loads)[0] <= budget:
            return [sorted(b, key=lambda i: (sizes[i], i)) for b in bins]
        count += 1


def check_budget(sizes: Sequence[int], budget: int, origins: Sequence[object]) -> None:
    """Refuses examples that no micro-batch can hold.

    Raises:
        DataError: names each with its line and size.
    """
    large = [i for i, size in enumerate(sizes) if size > budget]
    if large:
        named = ", ".join(f"{origins[i]} ({sizes[i]:,})" for i in large[:5])
        raise DataError(
            f"{len(large)} examples have more tokens than training.token_budget ({budget:,}): {named}",
            cure="raise training.token_budget, or lower data.max_length",
            code="over-budget",
        )


def empty_like(example: Example) -> Example:
    """One token and no target: what a rank without work runs, so that all ranks stay in step."""
    first = example.segments[0]
    types = None if first.token_types is None else first.token_types[:1]
    segment = replace(first, tokens=first.tokens[:1], parent=None, source=None, token_types=types)
    targets = {
        head: {name: column[:0] for name, column in table.items()}
        for head, table in example.targets.items()
    }
    return Example((segment,), targets, example.origin)


def collate(
    examples: Sequence[Example],
    *,
    layout: Layout = "packed",
    causal: bool = True,
    position_offset: int = 0,
    pad_token: int = 0,
) -> Batch:
    """Examples as one model input, on the CPU.

    Args:
        examples: at least one.
        layout: ``packed`` for ``[1, N]``, ``padded`` for one row a root-to-leaf path.
        causal: whether segments see themselves causally (decoders) or wholly (encoders).
        position_offset: added to every position (2 in RoBERTa).
        pad_token: what fills rows of the padded layout.
    """
    table, positions = _segments(examples, causal)
    tokens = np.concatenate([s.tokens for e in examples for s in e.segments])
    positions = positions + position_offset
    batch = Batch(
        tokens=_tensor(tokens)[None],
        positions=_tensor(positions)[None],
        segments=table,
        targets=_targets(examples),
        origins=tuple(e.origin for e in examples),
        index=torch.arange(len(tokens)),
        token_types=_token_types(examples),
        size=len(tokens),
    )
    return batch if layout == "packed" else _pad(batch, pad_token)


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device; nothing is copied where it lies there already."""
    if device.type == "cpu":
        return batch

    def to(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(device, non_blocking=True)

    return replace(
        batch,
        tokens=to(batch.tokens),
        positions=to(batch.positions),
        index=to(batch.index),
        attention_mask=to(batch.attention_mask),
        token_types=to(batch.token_types),
        targets={h: {n: to(c) for n, c in t.items()} for h, t in batch.targets.items()},
    )


def _segments(examples: Sequence[Example], causal: bool) -> tuple[SegmentTable, Any]:
    starts: list[int] = []
    lengths: list[int] = []
    parents: list[int] = []
    positions = []
    at = 0
    for example in examples:
        first = len(starts)
        ends: list[int] = []
        for segment in example.segments:
            before = ends[segment.parent] if segment.parent is not None else 0
            length = len(segment.tokens)
            positions.append(np.arange(before, before + length))
            ends.append(before + length)
            starts.append(at)
            lengths.append(length)
            parents.append(-1 if segment.parent is None else first + segment.parent)
            at += length
    table = SegmentTable(tuple(starts), tuple(lengths), tuple(parents), causal)
    return table, np.concatenate(positions)


def _targets(examples: Sequence[Example]) -> dict[str, dict[str, Tensor]]:
    """Tables end to end: references shifted, an ``example`` column added."""
    tables: dict[str, dict[str, Tensor]] = {}
    for head in examples[0].targets:
        columns: dict[str, list[Any]] = {name: [] for name in examples[0].targets[head]}
        columns["example"] = []
        tokens = segments = 0
        for number, example in enumerate(examples):
            shift = {"position": tokens, "segment": segments, "example": number}
            table = example.targets[head]
            for name, column in table.items():
                columns[name].append(column + shift[name] if name in REFERENCES else column)
            if "example" not in table:
                columns["example"].append(np.full(_rows(table), number, dtype=np.int64))
            tokens += example.size
            segments += len(example.segments)
        tables[head] = {name: _tensor(np.concatenate(parts)) for name, parts in columns.items()}
    return tables


def _rows(table: Any) -> int:
    return len(next(iter(table.values())))


def _token_types(examples: Sequence[Example]) -> Tensor | None:
    parts = [s.token_types for e in examples for s in e.segments]
    if all(part is None for part in parts):
        return None
    sizes = [len(s.tokens) for e in examples for s in e.segments]
    filled = [
        np.zeros(n, dtype=np.int64) if p is None else p for p, n in zip(parts, sizes, strict=True)
    ]
    return _tensor(np.concatenate(filled))[None]


def _pad(batch: Batch, pad_token: int) -> Batch:
    """One row a root-to-leaf path; a shared segment's outputs are read from its first row."""
    table = batch.segments
    inner = set(table.parents)
    paths = [table.path(i) for i in range(len(table.parents)) if i not in inner]
    rows = [
        np.concatenate([np.arange(table.starts[s], table.starts[s] + table.lengths[s]) for s in p])
        for p in paths
    ]
    width = max(len(row) for row in rows)
    take = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    index = np.full(batch.size, -1, dtype=np.int64)
    for number, row in enumerate(rows):
        take[number, : len(row)] = row
        mask[number, : len(row)] = 1
        fresh = index[row] < 0
        index[row[fresh]] = number * width + np.flatnonzero(fresh)
    flat, real = _tensor(take), _tensor(mask)
    tokens = torch.where(real == 1, batch.tokens[0][flat], pad_token)
    positions = batch.positions[0][flat] * real
    types = None if batch.token_types is None else batch.token_types[0][flat] * real
    return replace(
        batch,
        tokens=tokens,
        positions=positions,
        attention_mask=real,
        token_types=types,
        index=_tensor(index),
    )


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
