"""A store of examples gives back what went in, from memory and from a memory map alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from builders import answered, document, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.core.records import Example, Origin, Segment
from luthier.data.store import ExampleStore


def same(a: Example, b: Example) -> bool:
    """Whether two examples are equal in every value and every dtype that counts."""
    assert a.origin == b.origin
    assert len(a.segments) == len(b.segments)
    for x, y in zip(a.segments, b.segments, strict=True):
        assert (x.parent, x.source, x.stream) == (y.parent, y.source, y.stream)
        assert x.tokens.tolist() == y.tokens.tolist()
        assert y.tokens.dtype == np.int64
        assert (x.token_types is None) == (y.token_types is None)
        if x.token_types is not None and y.token_types is not None:
            assert x.token_types.tolist() == y.token_types.tolist()
    assert set(a.targets) == set(b.targets)
    for head, table in a.targets.items():
        assert set(table) == set(b.targets[head])
        for name, column in table.items():
            other = b.targets[head][name]
            assert (column.dtype, column.shape) == (other.dtype, other.shape), name
            assert np.array_equal(column, other)
    return True


@st.composite
def stores(draw: st.DrawFn) -> list[Example]:
    """Trees with an ordinary table and one with further typed columns, some without a row."""
    made = []
    for number in range(draw(st.integers(1, 6))):
        lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
        parents: list[int | None] = [None]
        parents += [draw(st.integers(0, i - 1)) for i in range(1, len(lengths))]
        base = tree(lengths, parents, seed=number)
        rows = draw(st.integers(0, 3))
        extra = {
            "segment": np.arange(rows),
            "advantage": np.linspace(-1, 1, rows).astype(np.float32),
            "exact": np.linspace(-1, 1, rows),
            "teacher": np.full((rows, 3), number),
            "liked": np.arange(rows) % 2 == 0,
        }
        source = draw(st.sampled_from(["a.jsonl", "b.jsonl"]))
        origin = Origin(source, draw(st.integers(1, 10**9)))
        made.append(Example(base.segments, {**base.targets, "pair": extra}, origin))
    return made


@settings(deadline=None, max_examples=40)
@given(made=stores())
def test_what_goes_in_comes_out(made: list[Example], tmp_path_factory: Any) -> None:
    store = ExampleStore.build(made)
    folder = tmp_path_factory.mktemp("store") / "made"
    store.save(folder)
    mapped = ExampleStore.load(folder)
    for found in (store, mapped):
        assert len(found) == len(made)
        assert all(same(a, b) for a, b in zip(made, found, strict=True))
        assert found.sizes.tolist() == [e.size for e in made]
        assert found.tokens == sum(e.size for e in made)
        assert found.rows("lm") == sum(len(e.targets["lm"]["token"]) for e in made)
        assert [found.origin(i) for i in range(len(made))] == [e.origin for e in made]


def test_token_types_streams_and_sources() -> None:
    types = np.array([0, 1, 1])
    made = [
        Example(
            (
                Segment(np.array([5, 6, 7]), stream="source", token_types=types),
                Segment(np.array([8]), source=0, token_types=np.array([0])),
            ),
            {"lm": {"position": np.array([3]), "token": np.array([9])}},
            Origin("a", 3),
        )
    ]
    assert same(made[0], ExampleStore.build(made)[0])


def test_the_map_is_read_only_when_asked_and_takes_no_pickle(tmp_path: Path) -> None:
    ExampleStore.build([document(30), answered(4, 5)]).save(tmp_path / "store")
    mapped = ExampleStore.load(tmp_path / "store")
    assert all(isinstance(array, np.memmap) for array in mapped.arrays.values())
    with pytest.raises(ValueError, match="read-only"):
        mapped.arrays["tokens"][0] = 1
    example = mapped[0]
    example.segments[0].tokens[0] = 99  # a copy: what is read may be changed
    assert mapped[0].segments[0].tokens[0] != 99
    np.save(tmp_path / "store" / "tokens.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        ExampleStore.load(tmp_path / "store")


def test_indices_are_those_of_a_sequence() -> None:
    store = ExampleStore.build(builders.examples([3, 4, 5, 6]))
    assert [e.size for e in store[1:3]] == [4, 5]
    assert [e.size for e in store[::-1]] == [6, 5, 4, 3]
    for wrong in (4, -1):
        with pytest.raises(IndexError):
            store[wrong]
    assert [e.size for e in store] == [3, 4, 5, 6]


def test_saving_leaves_nothing_beside_it_and_keeps_what_is_there(tmp_path: Path) -> None:
    first, second = ExampleStore.build([document(3)]), ExampleStore.build([document(9)])
    first.save(tmp_path / "store", {"note.json": "{}"})
    second.save(tmp_path / "store")  # as when two ranks make the same one
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    assert ExampleStore.load(tmp_path / "store").tokens == 3
    assert (tmp_path / "store" / "note.json").read_text() == "{}"


def test_no_example_is_an_empty_store() -> None:
    store = ExampleStore.build([])
    assert (len(store), store.tokens, store.rows("lm")) == (0, 0, 0)
