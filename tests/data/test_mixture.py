"""Mixtures and balanced classes: what an epoch draws, exactly, and of training rows alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core import kinds
from luthier.core.errors import UserError
from luthier.core.recipe import DataSpec
from luthier.data.mixture import by_class, by_source, draws
from luthier.data.order import Order, Pool, epoch_order
from luthier.data.parts import Part, read_parts

COUNTS = st.lists(st.integers(1, 300), min_size=1, max_size=5)


def drawn(order: Order, epochs: int) -> list[list[int]]:
    """Every index that each epoch takes."""
    return [
        [i for n in range(order.per_epoch) for i in order.step(e * order.per_epoch + n)]
        for e in range(epochs)
    ]


def pools(*sizes_and_draws: tuple[int, int]) -> list[Pool]:
    made, at = [], 0
    for size, count in sizes_and_draws:
        made.append(Pool(np.arange(at, at + size), count))
        at += size
    return made


def test_it_is_the_same_on_every_machine_and_in_every_version() -> None:
    order = Order(9, 4, seed=7, pools=pools((6, 3), (3, 5)))
    assert drawn(order, 2) == GOLDEN


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 90)), min_size=1, max_size=4))
def test_each_pool_gives_its_number_and_no_row_runs_ahead(sizes: list[tuple[int, int]]) -> None:
    """After e epochs a row was drawn ``e * draws / rows`` times, rounded down or up."""
    order = Order(0, 7, seed=1, pools=pools(*sizes))
    assert order.count == sum(count for _, count in sizes)
    seen: Counter[int] = Counter()
    for epoch, indices in enumerate(drawn(order, 4), start=1):
        seen.update(indices)
        for pool in order.pools:
            times = [seen[int(i)] for i in pool.members]
            assert sum(times) == epoch * pool.draws
            assert max(times) - min(times) <= 1


def test_any_step_can_be_asked_for_first() -> None:
    whole = Order(0, 4, seed=1, pools=pools((20, 7), (3, 10)))
    steps = [whole.step(i) for i in range(30)]
    for number in (17, 3, 29, 0):
        assert Order(0, 4, seed=1, pools=pools((20, 7), (3, 10))).step(number) == steps[number]


def test_epochs_are_shuffled_and_leave_out_other_rows() -> None:
    epochs = drawn(Order(0, 4, seed=1, pools=pools((20, 10), (3, 10))), 2)
    assert {i for i in epochs[0] if i < 20}.isdisjoint({i for i in epochs[1] if i < 20})
    assert [i < 20 for i in epochs[0]] != sorted((i < 20 for i in epochs[0]), reverse=True)
    assert epochs[0] != epochs[1]


def mixed(*entries: dict[str, Any], **data: Any) -> DataSpec:
    named = [{"source": f"{number}.jsonl", **entry} for number, entry in enumerate(entries)]
    return DataSpec.model_validate({"mixture": named, **data})


@pytest.mark.parametrize(
    ("entries", "data", "counts", "expected"),
    [
        ([{}, {}], {}, [10, 90], (10, 90)),
        ([{"weight": 3}, {}], {}, [10, 90], (25, 75)),
        ([{"weight": 30}, {"weight": 10}], {}, [10, 90], (25, 75)),
        ([{}, {}], {"temperature": 2}, [100, 900], (250, 750)),
        ([{"weight": 3}, {}], {"temperature": 2}, [100, 900], (500, 500)),
        ([{"share": 0.4}, {}, {"weight": 2}], {}, [10, 30, 60], (40, 12, 48)),
        ([{"share": 0.4}, {"share": 0.6}], {}, [10, 90], (40, 60)),
        ([{}, {"cap": 20}], {}, [10, 90], (10, 20)),
        ([{}, {"cap": 400}], {"temperature": 2}, [100, 900], (167, 333)),
        ([{"weight": 2}, {}], {"epoch_length": "all_exhausted"}, [10, 90], (20, 90)),
        ([{"weight": 0.5}, {}], {"epoch_length": "all_exhausted"}, [10, 90], (10, 180)),
        ([{"share": 0.5}, {}], {"epoch_length": "all_exhausted"}, [10, 90], (90, 90)),
        ([{"share": 0.5}, {}], {"epoch_length": "first_exhausted"}, [10, 90], (10, 10)),
        ([{"weight": 2}, {}], {"epoch_length": "first_exhausted"}, [10, 90], (10, 45)),
        ([{}, {}], {"epoch_length": 20}, [10, 90], (2, 18)),
        ([{}, {}], {"epoch_length": 20}, [1, 9999], (1, 19)),
    ],
)  # fmt: skip
def test_what_an_epoch_draws(
    entries: Any, data: Any, counts: list[int], expected: tuple[int, ...]
) -> None:
    assert by_source(mixed(*entries, **data), counts).draws == expected


@given(COUNTS, st.integers(1, 5), st.floats(1, 20))
def test_draws_add_up_and_leave_no_source_out(
    counts: list[int], weight: int, temperature: float
) -> None:
    entries = [{"weight": weight if number == 0 else 1} for number in range(len(counts))]
    found = by_source(mixed(*entries, temperature=temperature), counts).draws
    assert sum(found) == sum(counts)
    assert min(found) >= 1
    if temperature == 1 and weight == 1:
        assert list(found) == counts


@given(COUNTS)
def test_exhausted_means_what_it_says(counts: list[int]) -> None:
    masses = [float(n + 1) for n in range(len(counts))]
    over, under = (draws(masses, counts, rule) for rule in ("all_exhausted", "first_exhausted"))
    assert all(d >= n for d, n in zip(over, counts, strict=True))
    assert any(d == n for d, n in zip(over, counts, strict=True))
    assert any(d == n for d, n in zip(under, counts, strict=True))
    assert all(d <= n for d, n in zip(under, counts, strict=True))


def test_classes_are_drawn_alike() -> None:
    names, counts = ("a", "b", "none", "c"), [50, 5, 0, 20]
    assert by_class("oversample", names, counts).draws == (50, 50, 0, 50)
    under = by_class("undersample", names, counts)
    assert under.draws == (5, 5, 0, 5)
    groups = np.repeat(np.arange(4), counts)
    assert [pool.draws for pool in under.pools(groups)] == [5, 5, 5]
    assert [len(pool.members) for pool in under.pools(groups)] == [50, 5, 20]


def test_every_source_as_it_is_is_the_order_of_one_list() -> None:
    plain = by_source(mixed({}, {}), [4, 6])
    assert plain.pools(np.repeat([0, 1], [4, 6])) == ()
    assert drawn(Order(10, 4, 0), 1)[0] == epoch_order(10, 0, 0).tolist()


def test_a_source_without_an_example_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.mixture\.1: no example of 1\.jsonl is left"):
        by_source(mixed({}, {}), [10, 0])


def test_it_is_said_what_an_epoch_is() -> None:
    spec = mixed({"weight": 3}, {})
    assert list(by_source(spec, [10, 90]).lines()) == [
        "an epoch: 100 examples, drawn by source from 100",
        "  0.jsonl: 10 examples, 25 drawn, 25.0% of the epoch, each seen 2.5 times",
        "  1.jsonl: 90 examples, 75 drawn, 75.0% of the epoch, each seen 0.833 times",
    ]


# Reading


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(objective: str = "sft", seed: int = 0, **data: Any) -> tuple[Part, Part | None, list[str]]:
    said: list[str] = []
    learner = kinds.build("objectives", kinds.config("objectives", objective))
    train, held = read_parts(DataSpec.model_validate(data), learner, seed, said.append)
    return train, held, said


def answers(count: int, word: str) -> list[dict[str, str]]:
    return [
        {"prompt": f"{word} {'x' * i} what is {i}", "response": f"{word} {i} {'y' * i}"}
        for i in range(count)
    ]


def test_each_source_is_read_in_its_own_way(tmp_path: Path) -> None:
    first = written(tmp_path, "a.jsonl", answers(9, "one"))
    second = written(
        tmp_path, "b.jsonl", [{"q": r["prompt"], "a": r["response"]} for r in answers(20, "two")]
    )
    entries = [
        {"source": first, "format": "prompt_response"},
        {"source": second, "columns": {"prompt": "q", "response": "a"}, "limit": 12},
        {"source": answers(5, "three")},
    ]
    part, _, said = read(mixture=entries, validation=0, limit=7)
    assert Counter(part.entries) == {0: 7, 1: 12, 2: 5}
    assert part.mixed == {first: 0, second: 1, "memory 3": 2}
    assert {r.origin.source for r in part.records} == {first, second, "memory 3"}
    assert any("prompt='q'" in line for line in said)


def test_each_source_gives_its_share_and_held_out_rows_are_never_drawn(tmp_path: Path) -> None:
    rows = [answers(40, "one"), answers(200, "two")]
    entries = [
        {"source": written(tmp_path, "a.jsonl", rows[0]), "weight": 9},
        {"source": written(tmp_path, "b.jsonl", rows[1])},
    ]
    train, held, _ = read(mixture=entries, validation=0.1, group="none")
    assert held is not None
    assert held.entries is not None
    assert Counter(held.entries) == {0: 4, 1: 20}
    assert train.entries is not None
    assert not {r.origin for r in train.records} & {r.origin for r in held.records}


@pytest.mark.parametrize("group", ["none", None])
@pytest.mark.parametrize("seed", range(4))
def test_many_small_files_are_one_source(seed: int, group: str | None, tmp_path: Path) -> None:
    files = [
        written(tmp_path, f"{word}{n}.jsonl", answers(5, f"{word} {n}"))
        for word, count in (("one", 4), ("two", 12))
        for n in range(count)
    ]
    entries = [{"source": files[:4]}, {"source": files[4:]}]
    _, held, _ = read(seed=seed, mixture=entries, validation=0.1, group=group)
    assert held is not None
    assert Counter(held.entries or ()) == {0: 2, 1: 6}


@pytest.mark.parametrize("seed", range(4))
def test_each_class_of_each_source_is_held_out(seed: int) -> None:
    def rows(word: str, count: int) -> list[dict[str, str]]:
        return [
            {"text": f"{word} {i} {chr(97 + i % 26) * (i + 3)}", "label": "ab"[i % 2]}
            for i in range(count)
        ]

    entries = [{"source": rows("one", 20)}, {"source": rows("two", 100)}]
    data = {"mixture": entries, "validation": 0.1, "group": "none"}
    _, held, _ = read("classification", seed, **data)
    assert held is not None
    pairs = Counter(zip(held.entries or (), [r.label for r in held.records], strict=True))  # type: ignore[attr-defined]
    assert pairs == {(0, "a"): 1, (0, "b"): 1, (1, "a"): 5, (1, "b"): 5}


def test_a_file_in_two_entries_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", answers(4, "one"))
    with pytest.raises(UserError, match=r"is in data\.mixture\.0 and again in data\.mixture\.1"):
        read(mixture=[{"source": file}, {"source": [file]}])


def test_weights_change_no_token_and_sources_do() -> None:
    """What is cached does not depend on how often it is drawn."""
    entries = [{"source": answers(9, "one")}, {"source": answers(9, "two")}]
    plain, _, _ = read(mixture=entries)
    weighed, _, _ = read(mixture=[{**entries[0], "weight": 3}, entries[1]], temperature=2)
    assert weighed.fingerprint == plain.fingerprint
    other, _, _ = read(mixture=entries[::-1])
    assert other.fingerprint != plain.fingerprint


#: Resumed runs of older versions depend on these.
GOLDEN = [[4, 3, 6, 2, 8, 7, 8, 7], [7, 5, 6, 1, 0, 7, 8, 6]]
