"""Equal and nearly equal texts: against every pair compared one by one, in small runs on disk."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data.runs_sorted import Runs
from luthier.data.similar import THRESHOLD, Similar
from luthier.data.words_hashed import SLICE, hashed


def words(text: str) -> list[str]:
    return re.findall(r"[^\s.,;:!?\"'`()\[\]{}]+", text.lower())


def shingles(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + 3]) for i in range(len(found) - 2)}


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / max(1, len(a | b))


def corpus(count: int, seed: int) -> list[str]:
    """Invented texts, some of them an earlier one with a few words changed."""
    rng = random.Random(seed)
    vocabulary = [f"word{n}" for n in range(300)]
    texts: list[str] = []
    for _ in range(count):
        if texts and rng.random() < 0.4:
            copy = rng.choice(texts).split()
            for _ in range(rng.randrange(3)):
                copy[rng.randrange(len(copy))] = rng.choice(vocabulary)
            texts.append(" ".join(copy))
        else:
            texts.append(" ".join(rng.choices(vocabulary, k=rng.randrange(20, 90))))
    return texts


@pytest.mark.parametrize("run", [64, 4_000_000], ids=["many runs", "one run"])
def test_near_duplicates_are_those_of_all_pairs(tmp_path: Path, run: int) -> None:
    texts = corpus(300, 0)
    similar = Similar(tmp_path, run)
    for text in texts:
        similar.add(text)
    groups = np.zeros(len(texts), dtype=np.uint8)
    equal = {
        int(b): int(a)
        for p in similar.equal(groups)
        for a, b in zip(p.first, p.second, strict=True)
    }
    near = {
        int(b): (int(a), float(s))
        for p in similar.near(groups)
        for a, b, s in zip(p.first, p.second, p.similarity, strict=True)
    }
    assert equal == {
        i: first
        for i, text in enumerate(texts)
        if (first := next(j for j, t in enumerate(texts) if words(t) == words(text))) < i
    }
    for later, (earlier, similarity) in near.items():
        assert later not in equal
        assert jaccard(texts[earlier], texts[later]) == pytest.approx(similarity)
        assert similarity >= THRESHOLD
    wanted = {
        i
        for i, text in enumerate(texts)
        if i not in equal
        and any(jaccard(text, t) >= THRESHOLD for j, t in enumerate(texts[:i]) if j not in equal)
    }
    assert len(wanted) > 40
    assert len(wanted & set(near)) >= 0.95 * len(wanted)


def test_groups_are_compared_within_and_across(tmp_path: Path) -> None:
    similar = Similar(tmp_path)
    for text in ("a b c", "d e f", "A b, c!", "a b c", "d e f"):
        similar.add(text)
    groups = np.array([0, 0, 0, 1, 1], dtype=np.uint8)
    (pairs,) = similar.equal(groups)
    assert sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [
        (0, 2),
        (0, 3),
        (1, 4),
    ]
    assert not [p for p in similar.near(groups) if len(p.first)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_hashes_of_a_text_do_not_depend_on_its_neighbours(texts: list[str]) -> None:
    together = hashed(texts)
    ends = np.cumsum(together.counts)
    for i, text in enumerate(texts):
        alone = hashed([text])
        assert alone.whole[0] == together.whole[i]
        own = together.shingles[ends[i] - together.counts[i] : ends[i]]
        assert own.tolist() == alone.shingles.tolist()


def test_long_texts_are_cut_between_words() -> None:
    text = " ".join(f"word{n % 5000}" for n in range(200_000))
    assert len(text) > SLICE
    one, two = hashed([text]), hashed(["short one", text, "x"])
    assert one.whole[0] == two.whole[1]
    assert one.counts[0] == len(shingles(text)) == two.counts[1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is 5+3?", "What is 5-3?", False),
        ("It costs 3.5 €", "it  costs (3.5) €!", True),
        ("今日は天気", "今日は 天気", True),
        ("a b", "b a", False),
        ("“Quoted” – yes", '"Quoted" yes', True),
    ],
)
def test_what_counts_as_the_same(one: str, other: str, same: bool) -> None:
    whole = hashed([one, other]).whole
    assert (whole[0] == whole[1]) == same


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=200), st.integers(1, 50))
def test_runs_give_every_pair_once_and_no_key_in_two_parts(keys: list[int], run: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), "keys", run)
        for number, key in enumerate(keys):
            runs.add(np.array([key], dtype=np.uint64), np.array([number], dtype=np.uint32))
        parts = [(k.tolist(), n.tolist()) for k, n in runs.parts()]
    found = [pair for k, n in parts for pair in zip(k, n, strict=True)]
    assert found == sorted((key, number) for number, key in enumerate(keys))
    seen = [set(k) for k, _ in parts]
    assert sum(map(len, seen)) == len(set().union(*seen))


def test_runs_are_read_in_parts_of_about_their_own_size(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "keys", 1000)
    keys = np.random.default_rng(0).integers(0, 2**64 - 1, 10_000, dtype=np.uint64)
    for start in range(0, len(keys), 100):
        runs.add(keys[start : start + 100], np.arange(100, dtype=np.uint32))
    assert len(list(tmp_path.iterdir())) == 10
    assert max(len(part) for part, _ in runs.parts()) < 1200
