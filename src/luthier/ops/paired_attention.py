"""Attention from the segments of one packed row to those of another, with a bias on the scores.

What an encoder-decoder needs beside :mod:`luthier.ops.attention`: every target segment looks at
its own source segment in the encoder's row (cross attention), and T5 adds to each score a number
learned for the distance (Raffel et al. 2020, arXiv 1910.10683). Both rows are gathered once into
groups of segments of nearly one shape, padded to the largest of the group where a call costs more
than the padding, and put back in order once.

``A`` heads of size ``D``, ``G`` segments of a group, ``Q`` queries and ``K`` keys of its largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.core.records import Ints, SegmentTable
from luthier.ops.precision import compute_dtype

#: Padded scores that cost about as much as one more call.
_CALL = 4096


@dataclass(frozen=True)
class _Pair:
    """A segment and what it looks at.

    Attributes:
        queries: its tokens' places in the row.
        keys: places of what it sees, itself last where it looks at its own row.
    """

    queries: Ints
    keys: Ints

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.queries), len(self.keys)


@dataclass(frozen=True)
class _Group:
    """Segments that share a call.

    Attributes:
        count: how many.
        queries: of the longest.
        keys: of the longest.
        before: keys that stand before a segment's first query, where it looks at its own row.
        mask: ``[G or 1, 1, Q, K]``, true where a query sees a key; ``None`` where each sees all.
    """

    count: int
    queries: int
    keys: int
    before: int
    mask: Tensor | None


@dataclass(frozen=True)
class _Grid:
    """How two rows are gathered into groups, and back.

    Attributes:
        groups: in the order of the gathered tokens.
        queries: places in the row, group after group; a short segment's last one is its padding.
        keys: the same of the keys.
        back: ``[N]`` where each token of the row lies among the groups' outputs; tokens that look
            at nothing point behind them, at a row of zeros.
        blank: whether there are such tokens.
    """

    groups: tuple[_Group, ...]
    queries: Tensor
    keys: Tensor
    back: Tensor
    blank: bool


def paired_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: SegmentTable,
    read: SegmentTable | None,
    *,
    bias: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of packed segments to their own row, or each to a segment of another.

    Args:
        query: ``[A, N, D]``.
        key: ``[A, M, D]``.
        value: ``[A, M, D]``.
        segments: of the queries; ``causal`` counts where they look at their own row.
        read: the other row's segments, which ``segments.sources`` names; ``None`` for their own.
        bias: ``[1, A, L, L]`` added to the scores by place of query and key on their path.
        scaling: factor on the scores, ``D ** -0.5`` if unset.
        dropout: probability of dropping an attention weight.

    Returns:
        ``[N, A, D]``.
    """
    query, key, value = (x.to(compute_dtype(x)) for x in (query, key, value))
    grid = grid_of(segments, read, query.shape[1], query.device)
    queries = query.index_select(1, grid.queries)
    keys, values = (x.index_select(1, grid.keys) for x in (key, value))
    asked = queries.split_with_sizes([g.count * g.queries for g in grid.groups], 1)
    sizes = [g.count * g.keys for g in grid.groups]
    seen = zip(keys.split_with_sizes(sizes, 1), values.split_with_sizes(sizes, 1), strict=True)
    outputs = []
    for group, asking, pair in zip(grid.groups, asked, seen, strict=True):
        q, k, v = (_stacked(each, group.count) for each in (asking, *pair))
        near = None
        if bias is not None:
            near = bias[:, :, group.before : group.before + group.queries, : group.keys]
        out = _attend(q, k, v, group.mask, near, scaling, dropout)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    if grid.blank:
        outputs.append(query.new_zeros(1, query.shape[0], query.shape[2]))
    return torch.cat(outputs).index_select(0, grid.back)


def grid_of(
    segments: SegmentTable, read: SegmentTable | None, size: int, device: torch.device
) -> _Grid:
    """The groups of a row; made once a batch and kept beside its table.

    Args:
        segments: of the queries.
        read: of the other row, ``None`` for their own.
        size: tokens of the queries' row.
        device: where the rows lie.
    """
    name = f"grid {'own' if read is None else 'other'} {device}"
    if name not in segments.plans:
        segments.plans[name] = _make_grid(_pairs(segments, read), size, segments, read, device)
    grid = segments.plans[name]
    assert isinstance(grid, _Grid)
    return grid


def longest_path(segments: SegmentTable) -> int:
    """Tokens on the longest path from a root to a leaf."""
    if "longest path" not in segments.plans:
        lengths = segments.lengths
        paths = (segments.path(index) for index in range(len(lengths)))
        segments.plans["longest path"] = max(sum(lengths[i] for i in path) for path in paths)
    return int(segments.plans["longest path"])


def _pairs(segments: SegmentTable, read: SegmentTable | None) -> list[_Pair]:
    """Every segment that looks at something."""
    found = []
    for index, (start, length) in enumerate(zip(segments.starts, segments.lengths, strict=True)):
        looked = index if read is None else segments.sources[index]
        if not length or looked < 0:
            continue
        table = segments if read is None else read
        runs = [(table.starts[i], table.starts[i] + table.lengths[i]) for i in table.path(looked)]
        keys = np.concatenate([np.arange(*run) for run in runs])
        if len(keys):
            found.append(_Pair(np.arange(start, start + length), keys))
    return found


def _make_grid(
    pairs: Sequence[_Pair],
    size: int,
    segments: SegmentTable,
    read: SegmentTable | None,
    device: torch.device,
) -> _Grid:
    own = read is None
    groups, queries, keys = [], [], []
    back = np.full(size, -1, dtype=np.int64)
    at = 0
    for chosen in _grouped(pairs, own):
        wide = max(len(pair.queries) for pair in chosen)
        deep = max(len(pair.keys) for pair in chosen)
        for number, pair in enumerate(chosen):
            queries.append(_filled(pair.queries, wide))
            keys.append(_filled(pair.keys, deep))
            back[pair.queries] = at + number * wide + np.arange(len(pair.queries))
        at += wide * len(chosen)
        before = chosen[0].shape[1] - chosen[0].shape[0] if own else 0
        mask = _mask(chosen, wide, deep, before if own and segments.causal else None)
        groups.append(
            _Group(len(chosen), wide, deep, before, None if mask is None else mask.to(device))
        )
    blank = bool((back < 0).any())
    back[back < 0] = at
    taken, seen, put = (
        torch.from_numpy(x).to(device) for x in (_joined(queries), _joined(keys), back)
    )
    return _Grid(tuple(groups), taken, seen, put, blank)


def _grouped(pairs: Sequence[_Pair], own: bool) -> list[list[_Pair]]:
    """Segments of nearly one shape together, while padding costs less than a call.

    Where they look at their own row, those of a group have equally much before them.
    """

    def before(pair: _Pair) -> int:
        return pair.shape[1] - pair.shape[0] if own else 0

    groups: list[list[_Pair]] = []
    wide = deep = 0
    for pair in sorted(pairs, key=lambda each: (before(each), *each.shape)):
        q, k = pair.shape
        if groups and before(groups[-1][0]) == before(pair):
            count, grown = len(groups[-1]), max(wide, q) * max(deep, k)
            if (count + 1) * grown - count * wide * deep - q * k <= _CALL:
                groups[-1].append(pair)
                wide, deep = max(wide, q), max(deep, k)
                continue
        groups.append([pair])
        wide, deep = q, k
    return groups


def _mask(chosen: Sequence[_Pair], wide: int, deep: int, before: int | None) -> Tensor | None:
    """Who sees whom in a group; ``before`` is given where later tokens are hidden."""
    mask = None
    lengths = [pair.shape[1] for pair in chosen]
    if min(lengths) < deep:
        mask = (torch.arange(deep) < torch.tensor(lengths)[:, None])[:, None, None, :]
    if before is not None and wide > 1:
        places = torch.arange(wide)[:, None] + before
        past = (torch.arange(deep) <= places)[None, None]
        mask = past if mask is None else mask & past
    return mask


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Scaled dot-product attention ``[G, A, Q, D]``; a bias that is learned needs the scores."""
    if bias is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
        )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scores = (query if scale == 1.0 else query * scale) @ key.transpose(-1, -2) + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return F.dropout(scores.softmax(-1), dropout).to(value.dtype) @ value


def _stacked(tokens: Tensor, count: int) -> Tensor:
    """``[A, G * length, D] -> [G, A, length, D]``."""
    return tokens.reshape(len(tokens), count, -1, tokens.shape[-1]).transpose(0, 1)


def _filled(places: Ints, length: int) -> Ints:
    """The places, the last one repeated up to a length."""
    return np.concatenate([places, np.full(length - len(places), places[-1])])


def _joined(parts: Sequence[Ints]) -> Any:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
