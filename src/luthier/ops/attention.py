"""Segment attention: each segment sees its ancestors and itself, and nothing else.

``D`` is the size of a head, ``A`` the number of query heads. The segment table travels through
an unchanged transformers model as a keyword argument of ``forward``; the function registered
under :data:`NAME` receives it in every layer.

A root segment needs one plain causal call. Roots of nearly equal length share a call, padded on
the right, where causality keeps the padding out of every real token. A child's keys are its
ancestors' and its own, so a prompt shared by several answers is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luthier.core.records import SegmentTable

#: The name under which transformers knows this attention.
NAME = "luthier_segments"

#: Roots share a call while padding adds at most this share of tokens.
_WASTE = 0.15


def register() -> str:
    """Makes segment attention known to transformers; returns its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, segment_attention)
    return NAME


def segment_attention(  # noqa: D417 - the rest of what transformers passes
    module: nn.Module,  # noqa: ARG001 - transformers' signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    segments: SegmentTable | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed row.

    Args:
        module: the attention layer.
        query: ``[1, A, N, D]``.
        key: ``[1, K, N, D]``; ``A`` is a multiple of ``K``.
        value: ``[1, K, N, D]``.
        attention_mask: must be ``None``: the segment table says who sees whom.
        scaling: factor on the scores, ``D ** -0.5`` if unset.
        dropout: probability of dropping an attention weight.
        segments: where the segments lie.
        sliding_window: a token sees at most so many tokens, itself included.
        softcap: scores become ``softcap * tanh(score / softcap)``.

    Returns:
        ``[1, N, A, D]`` and no weights.
    """
    assert segments is not None, "packed input without its segment table"
    assert attention_mask is None, "a mask beside the segment table"
    assert unused.get("s_aux") is None, "attention sinks are not supported by segment attention"
    heads = _Heads(query[0], key[0], value[0], scaling, dropout, sliding_window, softcap)
    if query.device.type == "cuda" and not dropout and sum(segments.lengths) >= 128:
        return _flex(heads, segments).transpose(1, 2), None
    plan = plan_of(segments, query.device)
    outputs = [_roots(heads, group, segments.causal) for group in plan.groups]
    outputs += [_child(heads, segments, index) for index in plan.children]
    rows = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    if plan.inverse is not None:
        rows = rows.index_select(0, plan.inverse)
    return rows.unsqueeze(0), None


@dataclass(frozen=True)
class _Heads:
    """One layer's inputs without the batch axis, and how scores become weights."""

    query: Tensor  # [A, N, D]
    key: Tensor  # [K, N, D]
    value: Tensor  # [K, N, D]
    scaling: float | None
    dropout: float
    window: int | None
    softcap: float | None


@dataclass(frozen=True)
class _Group:
    """Root segments that share one call.

    Attributes:
        start: first token, where the group lies contiguous and unpadded.
        count: segments.
        length: tokens of the longest.
        take: ``[count * length]`` tokens to gather, or ``None`` where contiguous.
        keep: which gathered rows are real, or ``None`` where all are.
        lengths: ``[count]`` real tokens, needed by encoders.
    """

    start: int
    count: int
    length: int
    take: Tensor | None
    keep: Tensor | None
    lengths: Tensor | None


@dataclass(frozen=True)
class _Plan:
    groups: tuple[_Group, ...]
    children: tuple[int, ...]
    inverse: Tensor | None


def plan_of(segments: SegmentTable, device: torch.device) -> _Plan:
    """Which segments share a call; made once a batch and kept beside the table."""
    key = f"plan {device}"
    if key not in segments.plans:
        segments.plans[key] = _make_plan(segments, device)
    plan = segments.plans[key]
    assert isinstance(plan, _Plan)
    return plan


def _make_plan(segments: SegmentTable, device: torch.device) -> _Plan:
    roots = [i for i, p in enumerate(segments.parents) if p < 0 and segments.lengths[i]]
    children = tuple(i for i, p in enumerate(segments.parents) if p >= 0 and segments.lengths[i])
    roots.sort(key=lambda i: (segments.lengths[i], segments.starts[i]))
    groups, order, at = [], [], 0
    while at < len(roots):
        end = _group_end(roots, at, segments)
        groups.append(_make_group(roots[at:end], segments, device))
        order.extend(roots[at:end])
        at = end
    order.extend(children)
    places = [
        t
        for i in order
        for t in range(segments.starts[i], segments.starts[i] + segments.lengths[i])
    ]
    straight = places == list(range(len(places)))
    inverse = None if straight else torch.tensor(places).argsort().to(device)
    return _Plan(tuple(groups), children, inverse)


def _group_end(roots: list[int], at: int, segments: SegmentTable) -> int:
    """Extends a group over roots sorted by length while padding stays small."""
    real, end = 0, at
    while end < len(roots):
        length = segments.lengths[roots[end]]
        padded = length * (end - at + 1)
        if padded > (real + length) * (1 + _WASTE):
            break
        real += length
        end += 1
    return end


def _make_group(members: list[int], segments: SegmentTable, device: torch.device) -> _Group:
    lengths = [segments.lengths[i] for i in members]
    starts = [segments.starts[i] for i in members]
    longest, count = lengths[-1], len(members)
    contiguous = all(b == a + longest for a, b in pairwise(starts))
    if lengths[0] == longest and contiguous:
        return _Group(starts[0], count, longest, None, None, None)
    steps = torch.arange(longest)
    real = torch.tensor(lengths)[:, None]
    take = torch.tensor(starts)[:, None] + torch.minimum(steps, real - 1)
    keep = None
    if lengths[0] != longest:
        keep = (steps < real).flatten().nonzero()[:, 0].to(device)
    return _Group(-1, count, longest, take.flatten().to(device), keep, real[:, 0].to(device))


def _roots(heads: _Heads, group: _Group, causal: bool) -> Tensor:
    """Attention of a group of roots: rows ``[tokens, A, D]`` in the group's order."""

    def cut(x: Tensor) -> Tensor:  # [heads, N, D] -> [count, heads, length, D]
        part = (
            x[:, group.start : group.start + group.count * group.length]
            if group.take is None
            else x.index_select(1, group.take)
        )
        rows, _, size = part.shape
        return part.reshape(rows, group.count, group.length, size).transpose(0, 1)

    mask = None
    if not causal and group.keep is not None:
        assert group.lengths is not None
        steps = torch.arange(group.length, device=heads.query.device)
        mask = (steps < group.lengths[:, None])[:, None, None, :]
    windowed = heads.window is not None and group.length > heads.window
    if windowed:
        near = window_mask(group.length, group.length, heads.window, causal, heads.query.device)
        mask = near if mask is None else mask & near
    out = attend(cut(heads.query), cut(heads.key), cut(heads.value), mask, causal, heads)
    rows = out.transpose(1, 2).flatten(0, 1)
    return rows if group.keep is None else rows.index_select(0, group.keep)


def _child(heads: _Heads, segments: SegmentTable, index: int) -> Tensor:
    """Attention of one segment with ancestors: rows ``[tokens, A, D]``."""
    start, length = segments.starts[index], segments.lengths[index]
    spans = [(segments.starts[i], segments.lengths[i]) for i in segments.path(index)]
    key = torch.cat([heads.key[:, s : s + n] for s, n in spans], 1)
    value = torch.cat([heads.value[:, s : s + n] for s, n in spans], 1)
    total = key.shape[1]
    mask = window_mask(length, total, heads.window, segments.causal, key.device)
    query = heads.query[:, start : start + length]
    out = attend(query[None], key[None], value[None], mask, False, heads)
    return out[0].transpose(0, 1)


def window_mask(
    queries: int, keys: int, window: int | None, causal: bool, device: torch.device
) -> Tensor:
    """Who sees whom when the queries are the last of the keys: ``[queries, keys]`` bool."""
    distance = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(
        keys, device=device
    )
    mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        # Exclusive bounds: transformers gives bidirectional layers half of their window plus one.
        mask = mask & (distance.abs() < window)
    return mask


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, heads: _Heads
) -> Tensor:
    """Scaled dot-product attention ``[G, A, L, D]``; ``causal`` counts where no mask is given."""
    if heads.softcap is None:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=heads.dropout,
            is_causal=causal and mask is None,
            scale=heads.scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scale = heads.scaling if heads.scaling is not None else query.shape[-1] ** -0.5
    scores = (query @ key.transpose(-1, -2)) * scale
    scores = heads.softcap * torch.tanh(scores / heads.softcap)
    if mask is None and causal:
        mask = window_mask(query.shape[2], key.shape[2], None, True, query.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return F.dropout(weights, heads.dropout) @ value


_compiled: list[Callable[..., Any]] = []


def _flex(heads: _Heads, segments: SegmentTable) -> Tensor:
    """One fused kernel over the whole row: ``[1, A, N, D]``.

    FlexAttention (Dong et al. 2024, arXiv 2412.05496) skips blocks in which no token sees
    another. It has no backward pass on CPUs, hence the other path.
    """
    from torch.nn.attention.flex_attention import flex_attention

    if not _compiled:
        _compiled.append(torch.compile(flex_attention, dynamic=True))
    block_mask = flex_mask(segments, heads.window, heads.query.device)
    softcap = heads.softcap

    def cap(score: Tensor, *_: Tensor) -> Tensor:
        return score if softcap is None else softcap * torch.tanh(score / softcap)

    out = _compiled[0](
        heads.query[None],
        heads.key[None],
        heads.value[None],
        score_mod=None if softcap is None else cap,
        block_mask=block_mask,
        scale=heads.scaling,
        enable_gqa=heads.query.shape[0] != heads.key.shape[0],
    )
    assert isinstance(out, Tensor)
    return out


def flex_mask(segments: SegmentTable, window: int | None, device: torch.device) -> Any:
    """The segment rule as a FlexAttention block mask, made once a batch and window."""
    from torch.nn.attention.flex_attention import create_block_mask

    key = f"flex {device} {window}"
    if key not in segments.plans:
        rule, total = visibility(segments, window, device), sum(segments.lengths)
        segments.plans[key] = create_block_mask(rule, None, None, total, total, device=str(device))
    return segments.plans[key]


def visibility(
    segments: SegmentTable, window: int | None, device: torch.device
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether token ``q`` sees token ``k``, as a function of their places in the row."""
    count = len(segments.lengths)
    lengths = torch.tensor(segments.lengths)
    owner = torch.repeat_interleave(torch.arange(count), lengths)
    ancestor = torch.zeros(count, count, dtype=torch.bool)
    depth = torch.zeros(count, dtype=torch.long)
    for index in range(count):
        path = segments.path(index)
        ancestor[index, path] = True
        depth[index] = sum(segments.lengths[i] for i in path[:-1])
    places = torch.arange(len(owner)) - torch.tensor(segments.starts)[owner] + depth[owner]
    owner, ancestor, places = owner.to(device), ancestor.to(device), places.to(device)
    causal = segments.causal

    def sees(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = places[q] - places[k]
        seen = ancestor[owner[q], owner[k]]
        if causal:
            seen = seen & (distance >= 0)
        if window is not None:
            seen = seen & (distance.abs() < window)
        return seen

    return sees
