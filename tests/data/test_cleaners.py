"""Cleaners mend records in the open: what they change and drop is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import settings as least
from hypothesis import given
from hypothesis import strategies as st

from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.contracts_data import Cleaned
from luthier.core.errors import DataError, RecipeError
from luthier.core.records import (
    Conversation,
    ConversationTree,
    Labelled,
    Node,
    Origin,
    Preference,
    Record,
    SourceTarget,
    Tagged,
    Text,
    Turn,
)
from luthier.data.contents import mapped
from luthier.preview import preview

LONG = "the quick brown fox jumps over the lazy dog while the band plays on and the rain falls"
NAMES = kinds.names("data/cleaners")


def cleaned(kind: Any, *records: Record) -> Cleaned:
    made: Cleaned = kinds.build("data/cleaners", kinds.config("data/cleaners", kind)).clean(records)
    return made


def texts(*said: str) -> list[Record]:
    return [Text(Origin("a", n), text) for n, text in enumerate(said, start=1)]


def left(found: Cleaned) -> list[str]:
    return [record.text for record in found.records if isinstance(record, Text)]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("unicode", "Cafe\u0301\ufeff\x00 \u202eok", "Café ok"),
        ({"kind": "unicode", "form": "NFKC"}, "ﬁne Ａ", "fine A"),
        ("unicode", "ﬁne", "ﬁne"),
        ("whitespace", "a \u00a0\r\n\n\n\n  b\u200b \n", "a\n\n  b"),
        ("html", "<div>Salt &amp; <b>pepper</b><br>1 &lt; 2</div>", "Salt & pepper\n1 < 2"),
        ("html", "a < b and c > d, <3", "a < b and c > d, <3"),
        ("html", "x<script>alert(1)</script>y", "xy"),
        ("html", "R&D &c; x &eacute;", "R&D &c; x é"),
        (
            "personal",
            "jo@work.io, +1 212 867 5309, 4111 1111 1111 1111",
            "[email], [phone], [card]",
        ),
        ("personal", "key=AKIAIOSFODNN7EXAMPLE", "key=[secret]"),
        ("personal", "in 2019 there were 1,234 of them", "in 2019 there were 1,234 of them"),
    ],
)
def test_a_text_is_mended(kind: Any, before: str, after: str) -> None:
    found = cleaned(kind, *texts(before, "plain"))
    assert left(found) == [after, "plain"]
    assert (found.changed, found.dropped) == (int(before != after), 0)


def test_a_text_of_which_nothing_is_left_is_dropped() -> None:
    found = cleaned("html", *texts("<br>", "kept"))
    assert (left(found), found.changed, found.dropped) == (["kept"], 0, 1)


def test_equal_records_go_the_first_one_stays() -> None:
    found = cleaned("duplicates", *texts("a b", "c", "A  b\n", "c"))
    assert (left(found), found.changed, found.dropped) == (["a b", "c"], 0, 2)
    two = [Labelled(Origin("a", n), "same", label) for n, label in enumerate(("x", "y", "x"))]
    assert cleaned("duplicates", *two).dropped == 1


def test_nearly_equal_records_go() -> None:
    found = cleaned("near_duplicates", *texts(LONG, "another one", f"{LONG} again"))
    assert left(found) == [LONG, "another one"]
    assert found.dropped == 1


def test_lengths_are_bounded() -> None:
    bounds = {"kind": "length", "least": 3, "most": 6}
    assert left(cleaned(bounds, *texts("ab", "abc ", "abcdef", "abcdefg"))) == ["abc ", "abcdef"]
    talk = Conversation(Origin("a", 1), (Turn("user", "long enough"), Turn("assistant", "ok")))
    assert cleaned({"kind": "length", "least_answer": 3}, talk).dropped == 1
    assert cleaned({"kind": "length", "least_answer": 2}, talk).dropped == 0


def test_lines_that_all_repeat_go() -> None:
    notice = "Copyright of the company, all rights reserved"
    said = [f"{notice}\nstory {n}\n- a" for n in range(5)]
    found = cleaned("boilerplate", *texts(*said, "one line of its own"))
    assert left(found) == [*(f"story {n}\n- a" for n in range(5)), "one line of its own"]
    assert (found.changed, found.dropped) == (5, 0)
    assert left(cleaned({"kind": "boilerplate", "share": 1.0}, *texts(*said, "x"))) == [*said, "x"]
    same = texts(*["Please summarise the following text for me"] * 5)
    assert cleaned("boilerplate", *same).changed == 0


@pytest.mark.parametrize(
    "record",
    [
        Text(Origin("a", 1), "x"),
        Conversation(Origin("a", 1), (Turn("user", "x"), Turn("assistant", "x", '[{"a": "x"}]'))),
        ConversationTree(
            Origin("a", 1), (Node(Turn("user", "x")), Node(Turn("assistant", "x"), 0))
        ),
        Labelled(Origin("x", 1), "x", "x", "x"),
        SourceTarget(Origin("a", 1), "x", "x"),
        Preference(Origin("a", 1), (Turn("user", "x"),), (Turn("assistant", "x"),), ()),
        Tagged(Origin("a", 1), ("x",), ("O",)),
    ],
    ids=lambda record: type(record).__name__,
)
def test_every_text_is_reached_and_nothing_else(record: Record) -> None:
    made = mapped(record, str.upper)
    if isinstance(record, Tagged):
        assert made == record
        return
    assert repr(made).count("'X'") == repr(record).count("'x'") - repr(record.origin).count(
        "'x'"
    ) - (1 if isinstance(record, Labelled) else 0)
    assert made.origin == record.origin
    assert '[{"a": "x"}]' not in repr(record) or '[{"a": "x"}]' in repr(made)
    assert mapped(record, str) == record


@pytest.mark.parametrize("kind", NAMES)
@given(said=st.lists(st.text(max_size=60), max_size=6))
def test_law_9_nothing_is_lost_uncounted(kind: str, said: list[str]) -> None:
    records = texts(*said)
    found = cleaned(least("data/cleaners", kind), *records)
    assert len(found.records) + found.dropped == len(records)
    before = {record.origin: record for record in records}
    changed = [r for r in found.records if r != before[r.origin]]
    assert len(changed) == found.changed
    if kind in ("unicode", "whitespace", "duplicates", "near_duplicates", "length", "language"):
        assert list(cleaned(least("data/cleaners", kind), *found.records).records) == list(
            found.records
        ), "twice is more"


# In a recipe.


def made(folder: Path, rows: list[dict[str, Any]], **data: Any) -> recipes.Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"train": str(path), "validation": 0, **data}
    return recipes.load({"model": "builtin:nano", "objective": "sft", "data": spec})


def rows(count: int = 8) -> list[dict[str, Any]]:
    return [{"prompt": f"ask <b>{n}</b>", "response": f"answer {n % 4}"} for n in range(count)]


def test_steps_run_in_order_and_say_what_they_did(tmp_path: Path) -> None:
    twice = [*rows(), *rows()]
    seen = preview(made(tmp_path, twice, clean=["duplicates", "html"]))
    assert len(seen.train.records) == 8
    assert seen.train.cleaned == {
        "1 duplicates": {"changed": 0, "dropped": 8},
        "2 html": {"changed": 8, "dropped": 0},
    }
    assert "clean, duplicates: 0 rows changed, 8 dropped" in seen.said
    assert "clean, html: 8 rows changed, 0 dropped" in seen.said
    assert "<b>" not in repr(seen.train.records)
    other = preview(made(tmp_path, twice, clean="duplicates"))
    assert other.train.fingerprint != seen.train.fingerprint


def test_a_step_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    steps = [{"kind": "length", "least": 10_000}]
    with pytest.raises(DataError, match="length left none of 8 rows"):
        preview(made(tmp_path, rows(), clean=steps))
    with pytest.raises(RecipeError, match="did you mean 'whitespace'"):
        made(tmp_path, rows(), clean=["whitespaces"])


def test_a_subset_stands_for_all(tmp_path: Path) -> None:
    many = [{"text": f"text {n}", "label": "ab"[n % 10 == 0]} for n in range(200)]
    recipe = made(tmp_path, many, subset=40, validation=0.25)
    recipe = recipe.model_copy(
        update={"objective": kinds.config("objectives", "classification"), "method": recipe.method}
    )
    from luthier.data.parts import read_parts

    said: list[str] = []
    objective = kinds.build("objectives", recipe.objective)
    train, held = read_parts(recipe.data, objective, 0, said.append)
    assert held is not None
    assert len(held.records) == 50
    labels = [record.label for record in train.records if isinstance(record, Labelled)]
    assert len(labels) == 40
    assert labels.count("b") == 4
    assert "a subset of 40 of 150 training rows, as data.subset says" in said
    assert not {r.origin for r in train.records} & {r.origin for r in held.records}


def test_a_subset_without_an_effect_is_said(tmp_path: Path) -> None:
    said = preview(made(tmp_path, rows(), subset=8)).said
    assert "data.subset has no effect: there are 8 training rows" in said
