"""Law 9 for examples longer than the context: nothing is cut without a count."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.core.records import Example, Origin, Segment, causal_example
from luthier.data.length import Cut, fit

AT = Origin("train.jsonl", 718)
BOS, SEP = 1, 2


def ints(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def table(*rows: tuple[int, int], **columns: Any) -> dict[str, Any]:
    """An ``lm`` table from ``(position, token)`` rows; weights tell rows apart."""
    made = {
        "position": ints(*(row[0] for row in rows)),
        "token": ints(*(row[1] for row in rows)),
        "weight": np.arange(1, len(rows) + 1, dtype=np.float32),
    }
    return {**made, **columns}


def rows(example: Example, name: str = "lm") -> list[tuple[int, int, float]]:
    made = example.targets[name]
    return list(
        zip(made["position"].tolist(), made["token"].tolist(), made["weight"].tolist(), strict=True)
    )


def pair() -> Example:
    """A prompt 10..15 with two answers that share their first token."""
    segments = (
        Segment(ints(BOS, 11, 12, 13, 14, 15)),
        Segment(ints(20, 21, 22), parent=0),
        Segment(ints(20, 31), parent=0),
    )
    lm = table((5, 20), (6, 21), (7, 22), (5, 20), (9, 31))
    pooled = {"segment": ints(1, 2), "label": ints(1, 0)}
    example = {"example": ints(0), "margin": np.array([0.5], dtype=np.float32)}
    return Example(segments, {"lm": lm, "pooled": pooled, "pair": example}, AT)


def test_what_fits_is_left_alone() -> None:
    example = pair()
    for policy in ("window", "refuse", "left", "right", "drop"):
        assert fit(example, 9, policy) == ([example], Cut())


def test_refusal_names_line_length_limit_and_cures() -> None:
    with pytest.raises(DataError) as error:
        fit(pair(), 8, "refuse")
    for word in ("train.jsonl:718", "9 tokens", "only 8", "left, right or drop", "max_length"):
        assert word in str(error.value)


def test_a_tree_has_no_windows() -> None:
    with pytest.raises(DataError, match="9 tokens"):
        fit(pair(), 8, "window")


def test_drop_is_counted() -> None:
    assert fit(pair(), 8, "drop") == ([], Cut(tokens=11, targets=8, dropped=1))


def test_left_shortens_the_prompt_and_keeps_bos() -> None:
    (shorter,), cut = fit(pair(), 7, "left", bos=BOS)
    assert [segment.tokens.tolist() for segment in shorter.segments] == [
        [BOS, 13, 14, 15],
        [20, 21, 22],
        [20, 31],
    ]
    assert rows(shorter) == [(3, 20, 1), (4, 21, 2), (5, 22, 3), (3, 20, 4), (7, 31, 5)]
    assert shorter.targets["pooled"]["segment"].tolist() == [1, 2]
    assert cut == Cut(examples=1, tokens=2)


def test_left_without_bos_cuts_from_the_very_left() -> None:
    (shorter,), _ = fit(pair(), 7, "left")
    assert shorter.segments[0].tokens.tolist() == [12, 13, 14, 15]


def test_left_counts_the_targets_it_removes() -> None:
    example = causal_example([((BOS, 11, 12), True), ((13, 14, 15), True)], AT)
    (shorter,), cut = fit(example, 4, "left", bos=BOS)
    assert shorter.segments[0].tokens.tolist() == [BOS, 13, 14, 15]
    # BOS predicted 11, and 12 predicted 13: both rows are gone.
    assert rows(shorter) == [(1, 14, 1), (2, 15, 1)]
    assert cut == Cut(examples=1, tokens=2, targets=3)


def test_a_prompt_too_short_to_cut_drops_the_example() -> None:
    example = Example((Segment(ints(1, 2)), Segment(ints(*range(9)), parent=0)), {}, AT)
    assert fit(example, 10, "left")[1] == Cut(examples=1, tokens=1)
    assert fit(example, 9, "left")[1] == Cut(tokens=11, dropped=1)


def test_right_cuts_tails_and_what_predicted_them() -> None:
    (shorter,), cut = fit(pair(), 7, "right")
    assert [segment.tokens.tolist() for segment in shorter.segments] == [
        [BOS, 11, 12, 13, 14, 15],
        [20],
        [20],
    ]
    assert rows(shorter) == [(5, 20, 1), (5, 20, 4)]
    assert cut == Cut(examples=1, tokens=3, targets=3)


def test_right_drops_a_pair_that_would_lose_an_answer() -> None:
    assert fit(pair(), 6, "right") == ([], Cut(tokens=11, targets=8, dropped=1))


def test_right_leaves_independent_leaves_out() -> None:
    segments = (
        Segment(ints(10, 11)),
        Segment(ints(20, 21), parent=0),
        Segment(ints(30), parent=1),
        Segment(ints(20), parent=0),
        Segment(ints(40, 41), parent=3),
    )
    lm = table((1, 20), (2, 21), (3, 30), (1, 20), (5, 40), (6, 41))
    pooled = {"segment": ints(0, 2, 4), "label": ints(7, 8, 9)}
    example = Example(segments, {"lm": lm, "pooled": pooled}, AT)
    (shorter,), cut = fit(example, 4, "right", independent=True)
    assert [s.tokens.tolist() for s in shorter.segments] == [[10, 11], [20, 21], [20], [40]]
    assert [segment.parent for segment in shorter.segments] == [None, 0, 0, 2]
    assert rows(shorter) == [(1, 20, 1), (2, 21, 2), (1, 20, 4), (4, 40, 5)]
    assert shorter.targets["pooled"]["segment"].tolist() == [0, 3]
    assert shorter.targets["pooled"]["label"].tolist() == [7, 9]
    assert cut == Cut(examples=1, tokens=2, targets=3)


def test_equal_rows_at_a_branch_go_with_their_children() -> None:
    segments = (
        Segment(ints(10)),
        Segment(ints(11, 12), parent=0),
        Segment(ints(20), parent=1),
        Segment(ints(20), parent=1),
    )
    example = Example(segments, {"lm": table((2, 20), (2, 20), (0, 11))}, AT)
    (shorter,), cut = fit(example, 2, "right", independent=True)
    assert rows(shorter) == [(0, 11, 3)]
    assert cut == Cut(examples=1, tokens=3, targets=2)


def test_right_keeps_an_encoders_separator_and_its_token_types() -> None:
    segment = Segment(ints(BOS, 5, 6, 7, SEP), token_types=ints(0, 0, 0, 1, 1))
    pooled = {"segment": ints(0), "label": ints(3)}
    example = Example((segment,), {"classification": pooled}, AT)
    (shorter,), cut = fit(example, 3, "right", frame=frozenset({BOS, SEP}))
    assert shorter.segments[0].tokens.tolist() == [BOS, 5, SEP]
    assert shorter.segments[0].token_types is not None
    assert shorter.segments[0].token_types.tolist() == [0, 0, 1]
    assert cut == Cut(examples=1, tokens=2)


def test_rows_of_every_column_are_filtered_alike() -> None:
    teacher = np.arange(8).reshape(4, 2)
    lm = table((0, 11), (1, 12), (2, 13), (3, 14), teacher_token=teacher)
    tags = {"position": ints(0, 2, 4), "label": ints(1, 2, 3)}
    example = Example((Segment(ints(10, 11, 12, 13, 14)),), {"lm": lm, "tags": tags}, AT)
    (shorter,), cut = fit(example, 3, "right")
    assert rows(shorter) == [(0, 11, 1), (1, 12, 2)]
    assert shorter.targets["lm"]["teacher_token"].tolist() == [[0, 1], [2, 3]]
    assert shorter.targets["tags"]["label"].tolist() == [1, 2]
    assert cut == Cut(examples=1, tokens=2, targets=3)


def test_both_sides_of_an_encoder_decoder_fit() -> None:
    segments = (
        Segment(ints(1, 2, 3, 4), stream="source"),
        Segment(ints(5, 6, 7), source=0),
    )
    example = Example(segments, {"lm": table((4, 6), (5, 7))}, AT)
    (shorter,), cut = fit(example, 3, "right")
    assert [s.tokens.tolist() for s in shorter.segments] == [[1, 2, 3], [5, 6, 7]]
    assert shorter.segments[1].source == 0
    assert rows(shorter) == [(3, 6, 1), (4, 7, 2)]
    assert cut == Cut(examples=1, tokens=1)


def test_an_example_with_nothing_left_to_learn_is_dropped() -> None:
    example = causal_example([((1, 2, 3, 4), False), ((5, 6), True)], AT)
    assert fit(example, 4, "right") == ([], Cut(tokens=6, targets=2, dropped=1))


def test_an_example_that_never_had_targets_is_not() -> None:
    example = Example((Segment(ints(*range(10))),), {}, AT)
    assert fit(example, 4, "right")[1] == Cut(examples=1, tokens=6)
    windows, cut = fit(example, 4, "window")
    assert [window.size for window in windows] == [4, 4, 2]
    assert cut == Cut(examples=1, windows=3)


@settings(max_examples=200, deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    limit=st.integers(2, 16),
)
def test_windows_lose_no_target(runs: list[tuple[list[int], bool]], limit: int) -> None:
    example = causal_example(runs, AT)
    windows, cut = fit(example, limit, "window")
    assert all(window.size <= limit for window in windows)

    def predictions(parts: list[Example]) -> Counter[tuple[int, int]]:
        return Counter(
            (int(part.segments[0].tokens[position]), token)
            for part in parts
            for position, token, _ in rows(part)
        )

    assert predictions(windows) == predictions([example])
    assert cut.targets == cut.dropped == 0
    assert sum(window.size for window in windows) + cut.tokens == example.size
    tokens = example.segments[0].tokens.tolist()
    if not cut.tokens:
        assert [t for window in windows for t in window.segments[0].tokens.tolist()] == tokens


@st.composite
def trees(draw: st.DrawFn) -> Example:
    """A tree with a target for every token that something precedes, weights telling them apart."""
    segments: list[Segment] = []
    for index in range(draw(st.integers(1, 5))):
        tokens = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
        parent = draw(st.integers(0, index - 1)) if index else None
        segments.append(Segment(ints(*tokens), parent=parent))
    example = Example(tuple(segments), {}, AT)
    starts = example.starts()
    found: list[tuple[int, int]] = []
    for segment, start in zip(segments, starts, strict=True):
        for offset, token in enumerate(segment.tokens.tolist()):
            if offset:
                found.append((start + offset - 1, token))
            elif segment.parent is not None:
                end = starts[segment.parent] + len(segments[segment.parent].tokens)
                found.append((end - 1, token))
    return Example(tuple(segments), {"lm": table(*found)}, AT)


@settings(max_examples=300, deadline=None)
@given(example=trees(), limit=st.integers(2, 12), policy=st.sampled_from(["left", "right"]))
def test_cuts_keep_exactly_the_targets_whose_token_stays(
    example: Example, limit: int, policy: str
) -> None:
    made, cut = fit(example, limit, policy, independent=True)
    before = len(rows(example))
    if not made:
        assert cut == Cut(tokens=example.size, targets=before, dropped=1)
        return
    (shorter,) = made
    assert shorter.depth() <= limit
    assert example.size - shorter.size == cut.tokens
    assert before - len(rows(shorter)) == cut.targets
    # What stays is what a tree of the remaining tokens would have: every token with something
    # before it is predicted, once.
    tokens = [token for segment in shorter.segments for token in segment.tokens.tolist()]
    wanted: Counter[tuple[int, int]] = Counter()
    starts = shorter.starts()
    for segment, start in zip(shorter.segments, starts, strict=True):
        wanted.update((start + i - 1, tokens[start + i]) for i in range(1, len(segment.tokens)))
        if segment.parent is not None:
            end = starts[segment.parent] + len(shorter.segments[segment.parent].tokens)
            wanted[end - 1, tokens[start]] += 1
    assert Counter((position, token) for position, token, _ in rows(shorter)) == wanted


def test_cuts_add_up() -> None:
    total = Cut(1, 2, 3, 4, 5) + Cut(1, 1, 1, 1, 1)
    assert total == Cut(2, 3, 4, 5, 6)
    assert total
    assert not Cut()
