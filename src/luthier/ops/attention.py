"""Segment attention: each segment sees its ancestors and itself, and nothing else.

``D`` is the size of a head, ``A`` the number of query heads. The segment table travels through
an unchanged transformers model as a keyword argument of ``forward``; the function registered
under :data:`NAME` receives it in every layer.

A root segment needs one plain causal call; neighbours of one length share one. Where a call costs
more than its arithmetic, neighbours of nearly one length do so too, padded on the right, where
causality keeps the padding out of every real token. A child's keys are its ancestors' and its
own, so a prompt shared by several answers is computed once; short answers share a call. The row is
split once, and every call's output lies in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luthier.core.records import SegmentTable
from luthier.ops.attention_masks import sibling_mask, window_mask
from luthier.ops.paired_attention import paired_attention
from luthier.ops.precision import compute_dtype

#: The name under which transformers knows this attention.
NAME = "luthier_segments"

#: Roots of different length share a call while padding adds at most this share of tokens.
_WASTE = 0.15

#: Tokens of siblings up to which they share a call, though they do not see each other.
_SIBLINGS = 256

#: Keys up to which 16-bit attention on a CPU takes plain products: two to eight times faster.
_SHORT = 192


def register() -> str:
    """Makes segment attention known to transformers; returns its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, segment_attention)
    return NAME


# The plan differs from batch to batch: compiled, it would be compiled anew for each.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def segment_attention(  # noqa: D417 - the rest of what transformers passes
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    segments: SegmentTable | None = None,
    read: SegmentTable | None = None,
    position_bias: Tensor | None = None,
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
        read: where those of the encoder's row lie; a layer that is not causal then looks there.
        position_bias: ``[1, A, L, L]`` added to the scores by place (T5); empty for none.
        sliding_window: a token sees at most so many tokens, itself included.
        softcap: scores become ``softcap * tanh(score / softcap)``.

    Returns:
        ``[1, N, A, D]`` and no weights.
    """
    assert segments is not None, "packed input without its segment table"
    assert attention_mask is None, "a mask beside the segment table"
    assert unused.get("s_aux") is None, "attention sinks are not supported by segment attention"
    other = None if getattr(module, "is_causal", False) else read
    bias = position_bias if position_bias is not None and position_bias.numel() else None
    if other is not None or bias is not None:
        row = (query[0], key[0], value[0])
        how: dict[str, Any] = {"bias": bias, "scaling": scaling, "dropout": dropout}
        return paired_attention(*row, segments, other, **how)[None], None
    # Rotary embeddings hand on queries and keys in float32 under autocast.
    query, key, value = (x[0].to(compute_dtype(x)) for x in (query, key, value))
    heads = _Heads(query, key, value, scaling, dropout, sliding_window, softcap)
    if query.device.type == "cuda" and not dropout and sum(segments.lengths) >= 128:
        return _flex(heads, segments).transpose(1, 2), None
    plan = plan_of(segments, _padded_up_to(query), query.device)
    pieces = _Pieces(*(x.split_with_sizes(plan.sizes, 1) for x in (query, key, value)))
    outputs = [
        _roots(heads, pieces, number, call, segments.causal)
        if segments.parents[call.first] < 0
        else _children(heads, pieces, plan, call, segments)
        for number, call in enumerate(plan.calls)
        if plan.sizes[number]
    ]
    rows = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
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
class _Pieces:
    """A row split once: slices taken one by one would each cost a row of zeros going back."""

    query: tuple[Tensor, ...]  # [A, piece, D]
    key: tuple[Tensor, ...]  # [K, piece, D]
    value: tuple[Tensor, ...]  # [K, piece, D]


@dataclass(frozen=True)
class _Call:
    """Neighbouring roots or siblings that share a call, or one segment.

    Attributes:
        first: the first segment.
        count: segments.
        length: tokens of the longest.
        lengths: ``[count]`` where they differ, else ``None``, as the next two.
        take: ``[count * length]`` tokens of the piece, the last one of a segment as its padding.
        keep: which of them are real.
    """

    first: int
    count: int
    length: int
    lengths: Tensor | None = None
    take: Tensor | None = None
    keep: Tensor | None = None


@dataclass(frozen=True)
class _Plan:
    """Which segments share a call.

    Attributes:
        calls: in row order.
        sizes: tokens of each call, which is a piece of the row.
        piece_of: the piece that a segment is, or begins.
    """

    calls: tuple[_Call, ...]
    sizes: tuple[int, ...]
    piece_of: dict[int, int]


def plan_of(segments: SegmentTable, padded_up_to: int, device: torch.device) -> _Plan:
    """Which segments share a call; made once a batch and kept beside the table.

    Args:
        segments: where the segments lie.
        padded_up_to: tokens up to which roots of different length may share a call.
        device: where the row lies.
    """
    key = f"calls {padded_up_to} {device}"
    if key not in segments.plans:
        segments.plans[key] = _make_plan(segments, padded_up_to, device)
    plan = segments.plans[key]
    assert isinstance(plan, _Plan)
    return plan


def _padded_up_to(query: Tensor) -> int:
    """Padding costs more than calls on CPUs, but where these are plain products, and on GPUs."""
    if query.device.type != "cpu":
        return 2**31
    return _SHORT if query.dtype == torch.bfloat16 else 0


def _make_plan(segments: SegmentTable, padded_up_to: int, device: torch.device) -> _Plan:
    """Childless roots side by side share a call, and so do few tokens of childless siblings."""
    lengths, parents = segments.lengths, set(segments.parents)

    def joins(group: list[int], index: int) -> bool:
        together = [lengths[i] for i in (*group, index)]
        if any(i in parents for i in (group[-1], index)):
            return False
        if segments.parents[group[-1]] >= 0 or segments.parents[index] >= 0:
            siblings = segments.parents[group[-1]] == segments.parents[index]
            return siblings and sum(together) <= _SIBLINGS
        if min(together) == max(together):
            return True
        real, padded = sum(together), max(together) * len(together)
        return min(together) > 0 and max(together) <= padded_up_to and padded <= real * (1 + _WASTE)

    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: segments.starts[i]):
        if groups and joins(groups[-1], index):
            groups[-1].append(index)
        else:
            groups.append([index])
    return _Plan(
        tuple(
            _make_call(group, lengths, device, segments.parents[group[0]] >= 0) for group in groups
        ),
        tuple(sum(lengths[i] for i in group) for group in groups),
        {group[0]: number for number, group in enumerate(groups)},
    )


def _make_call(
    group: list[int], lengths: Sequence[int], device: torch.device, child: bool
) -> _Call:
    sizes = [lengths[i] for i in group]
    if min(sizes) == max(sizes) or child:
        return _Call(group[0], len(group), max(sizes))
    steps, real = torch.arange(max(sizes)), torch.tensor(sizes)[:, None]
    take = (real.cumsum(0) - real) + torch.minimum(steps, real - 1)
    keep = (steps < real).flatten().nonzero()[:, 0]
    moved = (x.to(device) for x in (real[:, 0], take.flatten(), keep))
    return _Call(group[0], len(group), max(sizes), *moved)


def _roots(heads: _Heads, pieces: _Pieces, number: int, call: _Call, causal: bool) -> Tensor:
    """Attention of roots that share a call: rows ``[tokens, A, D]``."""

    def cut(x: Tensor) -> Tensor:  # [heads, tokens, D] -> [count, heads, length, D]
        x = x if call.take is None else x.index_select(1, call.take)
        return x.reshape(len(x), call.count, call.length, -1).transpose(0, 1)

    query, key, value = (cut(x[number]) for x in (pieces.query, pieces.key, pieces.value))
    mask = None
    if not causal and call.lengths is not None:
        steps = torch.arange(call.length, device=query.device)
        mask = (steps < call.lengths[:, None])[:, None, None, :]
    if heads.window is not None and call.length > heads.window:
        near = window_mask(call.length, call.length, heads.window, causal, query.device)
        mask = near if mask is None else mask & near
    out = attend(query, key, value, mask, causal, heads)
    rows = out.transpose(1, 2).flatten(0, 1)
    return rows if call.keep is None else rows.index_select(0, call.keep)


def _children(
    heads: _Heads, pieces: _Pieces, plan: _Plan, call: _Call, segments: SegmentTable
) -> Tensor:
    """Attention of siblings that share a call, over themselves and their ancestors: rows."""
    path = [plan.piece_of[i] for i in segments.path(call.first)]
    query = pieces.query[path[-1]]
    key = torch.cat([pieces.key[number] for number in path], 1)
    value = torch.cat([pieces.value[number] for number in path], 1)
    known = f"siblings {call.first} {heads.window} {query.device}"
    if known not in segments.plans:  # every layer has the same
        before = key.shape[1] - query.shape[1]
        lengths = segments.lengths[call.first : call.first + call.count]
        segments.plans[known] = sibling_mask(
            before, lengths, heads.window, segments.causal, query.device
        )
    mask = segments.plans[known]
    out = attend(query[None], key[None], value[None], mask, False, heads)
    return out[0].transpose(0, 1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, heads: _Heads
) -> Tensor:
    """Scaled dot-product attention ``[G, A, L, D]``; ``causal`` counts where no mask is given."""
    if heads.softcap is None and not _short(query, key):
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
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scale = heads.scaling if heads.scaling is not None else query.shape[-1] ** -0.5
    scores = (query * scale) @ key.transpose(-1, -2)
    if heads.softcap is not None:
        scores = heads.softcap * torch.tanh(scores / heads.softcap)
    if mask is None and causal:
        mask = window_mask(query.shape[2], key.shape[2], None, True, query.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return F.dropout(scores.softmax(-1), heads.dropout) @ value


def _short(query: Tensor, key: Tensor) -> bool:
    """Whether plain products beat the fused kernel, whose 16-bit backward pass is slow on CPUs."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and key.shape[2] <= _SHORT


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
