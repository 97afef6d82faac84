"""The split: by content, the same on every machine, no row on both sides."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.core.records import (
    Conversation,
    Labelled,
    Origin,
    Prompt,
    Record,
    SourceTarget,
    Text,
    Turn,
)
from luthier.data.split import split


def texts(contents: Sequence[str], source: str = "a") -> list[Record]:
    return [Text(Origin(source, line), text) for line, text in enumerate(contents, start=1)]


def numbered(count: int, source: str = "a") -> list[Record]:
    return texts([f"{source} {n}" for n in range(count)], source)


def labelled(rows: Sequence[tuple[str, str]], source: str = "a") -> list[Record]:
    return [Labelled(Origin(source, i), text, label) for i, (text, label) in enumerate(rows)]


def held_out(records: Sequence[Record], share: float, seed: int = 0) -> set[str]:
    _, validation = split(records, share, seed)
    return {str(getattr(records[i], "text", records[i])) for i in validation}


@pytest.mark.parametrize("share", [0.1, 0.15, 0.29, 0.3, 0.5, 0.9])
def test_share_is_met_to_the_row(share: float) -> None:
    train, validation = split(numbered(100), share, 0)
    assert len(validation) == round(share * 100)
    assert sorted(train + validation) == list(range(100))
    assert train == sorted(train)
    assert validation == sorted(validation)


def test_seed_draws_other_rows_and_none_draws_none() -> None:
    rows = numbered(200)
    assert split(rows, 0.1, 3) == split(rows, 0.1, 3)
    assert split(rows, 0.1, 3) != split(rows, 0.1, 4)
    assert split(rows, 0.0, 3) == (list(range(200)), [])
    assert len(split(rows, 0.1, 10**100)[1]) == 20


PROGRAM = """
import json
from luthier.core.records import Conversation, Origin, Turn
from luthier.data.split import split
rows = [
    Conversation(Origin("x", i), (Turn("user", f"q{i}"), Turn("assistant", "é")))
    for i in range(40)
]
print(json.dumps(split(rows, 0.2, 7)[1]))
"""


def test_the_same_in_every_process() -> None:
    """Pinned: a change here changes every user's validation rows."""
    found = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert [json.loads(each) for each in found] == [PINNED, PINNED]


PINNED = [1, 2, 3, 21, 29, 32, 38, 39]


@given(
    st.lists(st.text("abc", max_size=2), min_size=2, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(),
)
def test_equal_rows_fall_on_one_side_whatever_their_order(
    contents: list[str], share: float, seed: int
) -> None:
    rows = texts(contents)
    if len(set(contents)) == 1:
        with pytest.raises(DataError, match="all rows say the same"):
            split(rows, share, seed)
        return
    train, validation = split(rows, share, seed)
    assert train
    assert validation
    assert sorted(train + validation) == list(range(len(rows)))
    kept, out = {contents[i] for i in train}, {contents[i] for i in validation}
    assert not kept & out
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    assert held_out(shuffled, share, seed) == out


@given(
    st.lists(st.tuples(st.text("ab", max_size=3), st.sampled_from("xyz")), min_size=2, max_size=60),
    st.floats(0.01, 0.6),
    st.integers(0, 9),
)
def test_labelled_texts_never_stand_on_both_sides(
    contents: list[tuple[str, str]], share: float, seed: int
) -> None:
    """Not even under contradictory labels."""
    rows = labelled(contents)
    classes: dict[str, str] = {}
    for text, label in sorted(contents, reverse=True):
        classes[text] = label
    if len(set(classes.values())) == len(classes):
        with pytest.raises(DataError, match="every class has a single text"):
            split(rows, share, seed)
        return
    train, validation = split(rows, share, seed)
    assert train
    assert validation
    assert not {contents[i][0] for i in train} & {contents[i][0] for i in validation}
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    assert held_out(shuffled, share, seed) == {contents[i][0] for i in validation}


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz")), min_size=12))
def test_a_source_never_stands_on_both_sides(rows: list[tuple[str, str]]) -> None:
    """Whatever its targets: a model that saw one translation knows the sentence."""
    made: list[Record] = [SourceTarget(Origin("a", i), *row) for i, row in enumerate(rows)]
    if len({source for source, _ in rows}) > 1:
        train, held = split(made, 0.3, seed=1)
        assert not {rows[i][0] for i in train} & {rows[i][0] for i in held}


def test_a_source_more_moves_no_row_of_the_others() -> None:
    first, second = numbered(50, "a"), numbered(73, "b")
    alone = held_out(first, 0.1)
    assert alone == {text for text in held_out([*second, *first], 0.1) if text.startswith("a")}
    assert len(held_out([*second, *first], 0.1)) == 5 + 7


def test_a_row_in_two_sources_falls_on_one_side() -> None:
    shared = [f"same {n}" for n in range(60)]
    rows = [*texts(shared, "a"), *texts(shared, "b"), *numbered(60, "c")]
    train, validation = split(rows, 0.3, 1)
    sides = [{getattr(rows[i], "text", "") for i in side} for side in (train, validation)]
    assert not sides[0] & sides[1]
    assert 40 <= len(validation) <= 60


def test_many_small_sources_count_as_one() -> None:
    """A folder of documents has a row in each file."""
    rows = [record for n in range(100) for record in numbered(1, f"{n}.txt")]
    assert len(split(rows, 0.1, 0)[1]) == 10
    assert len(split(rows[:2], 0.1, 0)[1]) == 1
    sixes = [record for n in range(10) for record in numbered(6, f"{n}.jsonl")]
    assert len(split(sixes, 0.1, 0)[1]) == 6


def test_classes_keep_their_share_and_the_total_is_met() -> None:
    rows = labelled([(f"{c} {n}", f"class {c}") for c in range(20) for n in range(14)])
    _, validation = split(rows, 0.1, 0)
    counts = Counter(str(getattr(rows[i], "label", "")) for i in validation)
    assert len(counts) == 20
    assert set(counts.values()) == {1, 2}
    assert len(validation) == 28


def test_rare_classes_are_validated_and_single_texts_are_trained_on() -> None:
    rows = labelled(
        [
            *((f"common {n}", "common") for n in range(96)),
            *(("r1", "rare"), ("r2", "rare")),
            *(("only", "single"), ("only", "single")),
        ]
    )
    _, validation = split(rows, 0.05, 0)
    counts = Counter(str(getattr(rows[i], "label", "")) for i in validation)
    assert counts == {"common": 4, "rare": 1}


def test_numbers_and_several_labels_are_split_by_source() -> None:
    scores = [Labelled(Origin("a", n), f"t{n}", float(n)) for n in range(30)]
    several = [Labelled(Origin("a", n), f"t{n}", ("x", str(n))) for n in range(30)]
    assert len(split(scores, 0.1, 0)[1]) == 3
    assert held_out(scores, 0.1) == held_out(several, 0.1)


def test_content_is_all_but_the_origin() -> None:
    def talk(answer: str, line: int) -> Record:
        return Conversation(Origin("a", line), (Turn("user", "q"), Turn("assistant", answer)))

    same = [talk("yes", line) for line in range(10)]
    with pytest.raises(DataError, match="all rows say the same"):
        split(same, 0.2, 0)
    assert len(split([*same, talk("no", 11)], 0.2, 0)[1]) == 1
    checks: list[Record] = [
        Prompt(Origin("a", 1), (Turn("user", "q"),), {"a": 1, "b": 2}),
        Prompt(Origin("a", 2), (Turn("user", "q"),), {"b": 2, "a": 1}),
    ]
    with pytest.raises(DataError, match="all rows say the same"):
        split(checks, 0.5, 0)


def test_a_frequent_row_does_not_swallow_the_share() -> None:
    rows = texts(["often"] * 80 + [f"once {n}" for n in range(20)])
    for seed in range(10):
        assert len(split(rows, 0.1, seed)[1]) == 10


def test_too_few_rows() -> None:
    assert split(numbered(1), 0.5, 0) == ([0], [])
    assert [len(side) for side in split(numbered(2), 0.1, 0)] == [1, 1]
    assert [len(side) for side in split(numbered(2), 0.99, 0)] == [1, 1]
    with pytest.raises(DataError, match="no row to train on"):
        split([], 0.1, 0)
    with pytest.raises(DataError, match="every class has a single text"):
        split(labelled([("a", "x"), ("b", "y")]), 0.5, 0)


# Rows that belong together.


def test_a_group_is_never_divided() -> None:
    rows = numbered(120)
    keys = [f"customer {n % 20}" for n in range(120)]
    train, held = split(rows, 0.2, 0, keys)
    assert held
    assert not {keys[i] for i in train} & {keys[i] for i in held}
    assert len(held) == 24
    plain, _ = split(rows, 0.2, 0)
    assert plain != train


@given(
    st.lists(st.tuples(st.text("ab", max_size=3), st.integers(0, 4)), min_size=4, max_size=40),
    st.integers(0, 5),
)
def test_groups_hold_with_equal_rows_and_labels(rows: list[tuple[str, int]], seed: int) -> None:
    """Equal texts and common keys chain into one group, whatever the order of the rows."""
    records = labelled([(text, str(len(text))) for text, _ in rows])
    keys = [key for _, key in rows]
    try:
        train, held = split(records, 0.3, seed, keys)
    except DataError:
        return
    for one in train:
        for other in held:
            assert keys[one] != keys[other]
            assert rows[one][0] != rows[other][0]
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    _, again = split([records[i] for i in order], 0.3, seed, [keys[i] for i in order])
    assert sorted((rows[order[i]] for i in again), key=str) == sorted(
        (rows[i] for i in held), key=str
    )


def test_keys_that_are_all_different_change_nothing() -> None:
    rows = numbered(50)
    assert split(rows, 0.2, 1, list(range(50))) == split(rows, 0.2, 1)
