"""Examples to batches: laid end to end (packed), or one row a root-to-leaf path (padded)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.core.errors import DataError
from luthier.core.records import REFERENCES, Batch, Example, Ints, Segment, SegmentTable

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


def padded_batches(sizes: Sequence[int], budget: int, ranks: int = 1) -> list[list[int]]:
    """The same for rows that will be padded: neighbours in length together.

    A micro-batch's longest example times their number stays within the budget.
    """
    assert all(size <= budget for size in sizes), "an example larger than the token budget"
    bins: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (sizes[i], i)):
        if bins and (len(bins[-1]) + 1) * sizes[index] <= budget:
            bins[-1].append(index)
        else:
            bins.append([index])
    return bins + [[] for _ in range(-len(bins) % ranks)]


def check_budget(sizes: Ints, budget: int, origin: Callable[[int], object]) -> None:
    """Refuses examples that no micro-batch can hold.

    Args:
        sizes: tokens of each example.
        budget: bound on the tokens of a micro-batch.
        origin: where an example stood; asked of those that are named.

    Raises:
        DataError: names each with its line and size.
    """
    large = np.flatnonzero(sizes > budget).tolist()
    if large:
        named = ", ".join(f"{origin(i)} ({sizes[i]:,})" for i in large[:5])
        raise DataError(
            f"{len(large)} examples have more tokens than training.token_budget ({budget:,}): "
            f"{named}",
            cure="raise training.token_budget, or lower data.max_length",
            code="over-budget",
        )


def empty_like(example: Example) -> Example:
    """One token and no target: what a rank without work runs, so that all ranks stay in step."""
    segments: list[Segment] = []
    for stream in ("source", "main"):
        for first in [s for s in example.segments if s.stream == stream][:1]:
            types = None if first.token_types is None else first.token_types[:1]
            source = None if first.source is None else 0
            segments.append(Segment(first.tokens[:1], None, source, first.stream, types))
    targets = {
        head: {name: column[:0] for name, column in table.items()}
        for head, table in example.targets.items()
    }
    return Example(tuple(segments), targets, example.origin)


def collate(
    examples: Sequence[Example],
    *,
    layout: Layout = "packed",
    causal: bool = True,
    position_offset: int = 0,
    pad_token: int = 0,
    fill: int = 1,
) -> Batch:
    """Examples as one model input, on the CPU.

    Args:
        examples: at least one.
        layout: ``packed`` for ``[1, N]``, ``padded`` for one row a root-to-leaf path.
        causal: whether segments see themselves causally (decoders) or wholly (encoders).
        position_offset: added to every position (2 in RoBERTa).
        pad_token: what fills rows of the padded layout.
        fill: a packed row is filled to a multiple of so many tokens by a segment that nothing
            sees: kernels that are built for each shape are then built for few.

    Returns:
        The batch; where examples have segments of stream ``source``, these are a batch of their
        own inside it, which is never causal.
    """

    def made(each: Sequence[Example], causal: bool) -> Batch:
        batch = _pack(each, causal, position_offset)
        if layout == "packed":
            return _fill(batch, fill, pad_token)
        assert causal or max(batch.segments.parents) < 0, "a tree of an encoder cannot be padded"
        return _pad(batch, pad_token)

    assert all(_columns(e) == _columns(examples[0]) for e in examples), "tables that differ"
    if all(segment.stream == "main" for e in examples for segment in e.segments):
        return made(examples, causal)
    batch = made([_stream(example, "main") for example in examples], causal)
    sources = _attended(examples)
    sources += (-1,) * (len(batch.segments.starts) - len(sources))
    source = made([_stream(example, "source") for example in examples], False)
    return replace(batch, segments=replace(batch.segments, sources=sources), source=source)


def _pack(examples: Sequence[Example], causal: bool, position_offset: int) -> Batch:
    """Examples laid end to end."""
    table, positions = _segments(examples, causal)
    tokens = np.concatenate([s.tokens for e in examples for s in e.segments])
    positions = positions + position_offset
    return Batch(
        tokens=_tensor(tokens)[None],
        positions=_tensor(positions)[None],
        segments=table,
        targets=_targets(examples),
        origins=tuple(e.origin for e in examples),
        index=torch.arange(len(tokens)),
        token_types=_token_types(examples),
        size=len(tokens),
    )


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
        source=None if batch.source is None else move(batch.source, device),
        step={name: to(figure) for name, figure in batch.step.items()},
    )


def _columns(example: Example) -> dict[str, set[str]]:
    return {head: set(table) for head, table in example.targets.items()}


def _stream(example: Example, stream: str) -> Example:
    """One stream of an encoder-decoder's example; the targets go with the main one."""
    kept = [i for i, segment in enumerate(example.segments) if segment.stream == stream]
    segments = {old: new for new, old in enumerate(kept)}
    lengths = [len(segment.tokens) for segment in example.segments]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    mine = np.isin(owner, kept)
    places = np.where(mine, np.cumsum(mine) - 1, -1)
    moved = {
        "position": places,
        "segment": np.array([segments.get(i, -1) for i in range(len(lengths))]),
    }

    def column(name: str, values: Any) -> Any:
        if name not in moved:
            return values
        assert (moved[name][values] >= 0).all(), "a target on a source segment"
        return moved[name][values]

    tables = example.targets if stream == "main" else {}
    return Example(
        tuple(
            replace(s, parent=None if s.parent is None else segments[s.parent], source=None)
            for s in (example.segments[i] for i in kept)
        ),
        {h: {n: column(n, c) for n, c in table.items()} for h, table in tables.items()},
        example.origin,
    )


def _attended(examples: Sequence[Example]) -> tuple[int, ...]:
    """For every main segment, the source segment it cross-attends to, counted over all examples."""
    found: list[int] = []
    before = 0
    for example in examples:
        order = [i for i, segment in enumerate(example.segments) if segment.stream == "source"]
        for segment in example.segments:
            if segment.stream == "main":
                found.append(-1 if segment.source is None else before + order.index(segment.source))
        before += len(order)
    return tuple(found)


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


def _fill(batch: Batch, multiple: int, pad_token: int) -> Batch:
    """One more segment, without targets; ``size`` and ``index`` go on meaning real tokens."""
    extra = -batch.size % multiple
    if not extra:
        return batch
    table, types = batch.segments, batch.token_types
    return replace(
        batch,
        tokens=F.pad(batch.tokens, (0, extra), value=pad_token),
        positions=F.pad(batch.positions, (0, extra)),
        token_types=None if types is None else F.pad(types, (0, extra)),
        segments=SegmentTable(
            (*table.starts, batch.size),
            (*table.lengths, extra),
            (*table.parents, -1),
            table.causal,
        ),
    )


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
