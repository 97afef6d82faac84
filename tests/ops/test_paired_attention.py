"""Attention between two packed rows: attention written out, for any lengths and any grouping."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from luthier.core.records import SegmentTable
from luthier.ops import paired_attention as paired
from luthier.ops.paired_attention import grid_of, longest_path, paired_attention

HEADS, SIZE = 2, 4


def table(lengths: list[int], parents: list[int] | None = None, **more: object) -> SegmentTable:
    starts = tuple(sum(lengths[:i]) for i in range(len(lengths)))
    roots = [-1] * len(lengths)
    return SegmentTable(starts, tuple(lengths), tuple(parents or roots), **more)


def tensors(queries: int, keys: int, paths: int, seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    shapes = [(HEADS, queries, SIZE), (HEADS, keys, SIZE), (HEADS, keys, SIZE)]
    made = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    bias = torch.randn(1, HEADS, paths, paths, dtype=torch.float64, requires_grad=True)
    return [*made, bias]


def written_out(
    given: list[Tensor], segments: SegmentTable, read: SegmentTable | None, *, biased: bool
) -> Tensor:
    """One segment at a time, each with the keys that it sees."""
    query, key, value, bias = given
    rows = query.new_zeros(query.shape[1], HEADS, SIZE)
    for index, (start, length) in enumerate(zip(segments.starts, segments.lengths, strict=True)):
        looked = index if read is None else segments.sources[index]
        if looked < 0:
            continue
        other = segments if read is None else read
        seen = [
            range(other.starts[i], other.starts[i] + other.lengths[i]) for i in other.path(looked)
        ]
        places = [place for run in seen for place in run]
        before = len(places) - length
        scores = query[:, start : start + length] @ key[:, places].transpose(1, 2) * 0.7
        if biased:
            scores = scores + bias[0, :, before : before + length, : len(places)]
        if read is None and segments.causal:
            future = torch.arange(len(places)) > torch.arange(length)[:, None] + before
            scores = scores.masked_fill(future, float("-inf"))
        out = (scores.softmax(-1) @ value[:, places]).transpose(0, 1)
        rows = torch.cat([rows[:start], out, rows[start + length :]])
    return rows


def compare(segments: SegmentTable, read: SegmentTable | None, *, biased: bool, slack: int) -> None:
    keys = sum((read or segments).lengths)
    longest = max(longest_path(segments), longest_path(read) if read else 0)
    given = tensors(sum(segments.lengths), keys, longest)
    kept, paired._CALL = paired._CALL, slack
    try:
        bias = given[3] if biased else None
        found = paired_attention(*given[:3], segments, read, bias=bias, scaling=0.7)
    finally:
        paired._CALL = kept
    wanted = written_out(given, segments, read, biased=biased)
    assert torch.allclose(found, wanted, atol=1e-12)
    weights = torch.randn_like(found)
    used = given if biased else given[:3]
    ours = torch.autograd.grad((found * weights).sum(), used, retain_graph=True)
    theirs = torch.autograd.grad((wanted * weights).sum(), used)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)


@given(LENGTHS, st.data(), st.booleans(), st.booleans(), st.sampled_from([0, 20, 10**6]))
def test_any_forest_with_a_bias_is_attention_written_out(
    lengths: list[int], data: st.DataObject, causal: bool, biased: bool, slack: int
) -> None:
    parents = [data.draw(st.integers(-1, i - 1)) if causal else -1 for i in range(len(lengths))]
    compare(table(lengths, parents, causal=causal), None, biased=biased, slack=slack)


@given(LENGTHS, LENGTHS, st.data(), st.sampled_from([0, 20, 10**6]))
def test_any_pairs_of_rows_are_attention_written_out(
    lengths: list[int], sources: list[int], data: st.DataObject, slack: int
) -> None:
    places = st.integers(-1, len(sources) - 1)
    chosen = tuple(data.draw(places) for _ in lengths)
    if all(place < 0 for place in chosen):
        chosen = (0, *chosen[1:])
    compare(table(lengths, sources=chosen), table(sources, causal=False), biased=False, slack=slack)


def test_segments_of_nearly_one_shape_share_a_call() -> None:
    segments = table([5, 9, 5, 6, 60], sources=(0, 1, 2, 3, 4))
    read = table([4, 8, 4, 5, 90], causal=False)
    device = torch.device("cpu")
    grid = grid_of(segments, read, 85, device)
    assert [(g.count, g.queries, g.keys) for g in grid.groups] == [(4, 9, 8), (1, 60, 90)]
    assert grid_of(segments, read, 85, device) is grid, "made once a batch"
    assert grid_of(segments, None, 85, device) is not grid


def test_dropout_follows_the_seed() -> None:
    segments = table([4, 6])
    given = tensors(10, 10, 6)

    def run(dropout: float) -> Tensor:
        torch.manual_seed(5)
        return paired_attention(*given[:3], segments, None, bias=given[3], dropout=dropout)

    assert torch.equal(run(0.5), run(0.5))
    assert not torch.equal(run(0.5), run(0.0))


def test_a_bias_of_another_distance_is_felt() -> None:
    segments = table([3, 2])
    given = tensors(5, 5, 3)
    plain = paired_attention(*given[:3], segments, None, bias=given[3])
    other = given[3].detach().clone()
    other[..., 1, 0] += 1.0
    changed = paired_attention(*given[:3], segments, None, bias=other)
    moved = (plain - changed).abs().amax((1, 2)) > 1e-9
    assert moved.tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("length", [1, 3])
def test_a_row_that_looks_at_nothing_is_zero(length: int) -> None:
    segments = table([2, length], sources=(0, -1))
    given = tensors(2 + length, 3, 3)
    found = paired_attention(*given[:3], segments, table([3], causal=False))
    assert not found[2:].any()
    assert found[:2].any()
