"""Batches: nothing lost, the budget kept, references right whatever the layout."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import pytest
import torch
from builders import answered, document, tree
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.core.records import Example, Origin, Segment
from luthier.data.batching import (
    check_budget,
    collate,
    empty_like,
    micro_batches,
    move,
    padded_batches,
)

sizes = st.lists(st.integers(1, 50), max_size=40)


@given(sizes, st.integers(1, 120), st.integers(1, 5))
def test_micro_batches_lose_nothing_and_keep_the_budget(
    lengths: list[int], budget: int, ranks: int
) -> None:
    assume(max(lengths, default=1) <= budget)
    made = micro_batches(lengths, budget, ranks)
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in batch) <= budget for batch in made)
    assert len(made) % ranks == 0
    assert made


@given(sizes, st.integers(50, 200))
def test_micro_batches_are_few_and_depend_on_sizes_alone(lengths: list[int], budget: int) -> None:
    made = micro_batches(lengths, budget)
    assert made == micro_batches(list(lengths), budget)
    # Longest first is never worse than twice the least possible number.
    assert len(made) <= max(1, 2 * -(-sum(lengths) // budget))
    for batch in made:
        assert [lengths[i] for i in batch] == sorted(lengths[i] for i in batch)


def test_ranks_share_a_step_evenly() -> None:
    made = micro_batches([10] * 7, 1000, ranks=2)
    assert sorted(map(len, made)) == [3, 4]
    assert micro_batches([10], 1000, ranks=2) == [[0], []]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=40),
    st.integers(60, 300),
    st.integers(1, 3),
)
def test_rows_that_will_be_padded_stay_within_the_budget(
    lengths: list[int], budget: int, ranks: int
) -> None:
    made = padded_batches(lengths, budget, ranks)
    assert sorted(index for each in made for index in each) == list(range(len(lengths)))
    assert all(len(each) * max(lengths[i] for i in each) <= budget for each in made if each)
    in_order = [lengths[i] for each in made for i in each]
    assert in_order == sorted(lengths), "neighbours in length together"
    assert len(made) % ranks == 0


def test_micro_batches_refuse_what_check_budget_should_have() -> None:
    with pytest.raises(AssertionError, match="larger than the token budget"):
        micro_batches([3, 11], 10)


def test_an_example_larger_than_the_budget_is_named_with_its_line_and_size() -> None:
    origins = [Origin("a.jsonl", 4), Origin("a.jsonl", 9)]
    check_budget(np.array([10, 10]), 10, origins.__getitem__)
    with pytest.raises(DataError, match=r"1 examples.*a\.jsonl:9 \(1,200\)"):
        check_budget(np.array([10, 1200]), 1000, origins.__getitem__)


def mixed() -> list[Example]:
    return [document(5, 1), tree(seed=2), answered(6, 4, 3), tree((1, 2), (None, 0), seed=4)]


def test_references_are_shifted_and_everything_else_is_carried() -> None:
    made = mixed()
    batch = collate(made)
    table = batch.targets["lm"]
    assert table["token"].tolist() == [t for e in made for t in e.targets["lm"]["token"]]
    assert table["weight"].tolist() == [w for e in made for w in e.targets["lm"]["weight"]]
    assert table["example"].tolist() == [
        i for i, e in enumerate(made) for _ in e.targets["lm"]["token"]
    ]
    at = 0
    expected = []
    for example in made:
        expected += [int(p) + at for p in example.targets["lm"]["position"]]
        at += example.size
    assert table["position"].tolist() == expected
    assert batch.size == at
    assert batch.packed


def test_segment_and_example_references_are_shifted_and_wide_columns_kept() -> None:
    made = []
    for number in range(3):
        scores = {
            "segment": np.array([1, 2]),
            "example": np.array([0, 0]),
            "teacher": np.full((2, 4), number, dtype=np.float32),
        }
        base = tree(seed=number)
        made.append(Example(base.segments, {**base.targets, "pair": scores}, base.origin))
    table = collate(made).targets["pair"]
    assert table["segment"].tolist() == [1, 2, 5, 6, 9, 10]
    assert table["example"].tolist() == [0, 0, 1, 1, 2, 2]
    assert table["teacher"].shape == (6, 4)
    assert table["teacher"].dtype == torch.float32


def test_positions_continue_from_the_parent() -> None:
    batch = collate([document(3), tree()], position_offset=2)
    positions = (batch.positions[0] - 2).tolist()
    assert positions[:3] == [0, 1, 2]
    assert positions[3:] == [*range(7), *range(7, 11), *range(7, 13), *range(13, 16)]
    assert batch.segments.parents == (-1, -1, 1, 1, 3)


@st.composite
def forests(draw: st.DrawFn) -> list[Example]:
    made = []
    for seed in range(draw(st.integers(1, 4))):
        lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
        parents: list[int | None] = [None]
        parents += [draw(st.integers(0, i - 1)) for i in range(1, len(lengths))]
        made.append(tree(lengths, parents, seed=seed))
    return made


@settings(deadline=None)
@given(forests())
def test_padded_rows_are_the_paths_and_the_index_finds_every_token(made: list[Example]) -> None:
    packed, padded = collate(made), collate(made, layout="padded", pad_token=1)
    rows = []
    for example in made:
        for path in builders.leaves(example):
            rows.append(np.concatenate([example.segments[s].tokens for s in path]).tolist())
    mask = padded.attention_mask
    assert not padded.packed
    assert mask.sum(1).tolist() == [len(row) for row in rows]
    for tokens, kept, row in zip(padded.tokens, mask, rows, strict=True):
        assert tokens[kept == 1].tolist() == row
        assert (tokens[kept == 0] == 1).all()
    assert torch.equal(padded.tokens.flatten()[padded.index], packed.tokens[0])
    assert torch.equal(padded.positions.flatten()[padded.index], packed.positions[0])
    assert mask.flatten()[padded.index].all()
    for positions, kept in zip(padded.positions, mask, strict=True):
        assert positions[kept == 1].tolist() == list(range(int(kept.sum())))


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_token_types_come_along(layout: Any) -> None:
    types = np.array([0, 1, 1])
    table = {"lm": {"position": np.array([0]), "token": np.array([6])}}
    typed = Example((Segment(np.array([5, 6, 7]), token_types=types),), table, Origin("a", 1))
    plain = Example((Segment(np.array([8, 9])),), table, Origin("a", 2))
    batch = collate([typed, plain], layout=layout)
    assert batch.token_types.flatten()[batch.index].tolist() == [0, 1, 1, 0, 0]
    assert batch.token_types.shape == batch.tokens.shape
    assert collate([plain], layout=layout).token_types is None


def test_an_empty_example_keeps_the_columns_and_learns_nothing() -> None:
    empty = empty_like(tree())
    batch = collate([empty])
    assert batch.size == 1
    assert set(batch.targets["lm"]) == {"position", "token", "weight", "example"}
    assert all(len(column) == 0 for column in batch.targets["lm"].values())
    assert batch.targets["lm"]["position"].dtype == torch.int64


def test_moving_to_the_same_device_copies_nothing() -> None:
    batch = collate(mixed())
    assert move(batch, torch.device("cpu")) is batch


def test_moving_takes_every_tensor_along() -> None:
    batch = move(collate(mixed(), layout="padded"), torch.device("meta"))
    tensors = [batch.tokens, batch.positions, batch.index, batch.attention_mask]
    tensors += [column for table in batch.targets.values() for column in table.values()]
    assert all(t.device.type == "meta" for t in tensors)
