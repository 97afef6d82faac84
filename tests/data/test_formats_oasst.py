"""OpenAssistant: exported trees and message tables are the same trees, and nothing gets lost."""

from __future__ import annotations

from typing import Any

import pytest
from format_cases import build, fault, read, read_all
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.records import Conversation, ConversationTree, Origin, Ranking, Record, Row
from luthier.data.recognise import recognise


def message(name: str, text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As exported: replies inside."""
    return {"message_id": name, "text": text, "replies": list(replies), "deleted": False, **more}


def said(name: str, text: str, *replies: dict[str, Any], rank: Any = None) -> dict[str, Any]:
    return message(name, text, *replies, role="assistant", rank=rank)


def asked(name: str, text: str, *replies: dict[str, Any]) -> dict[str, Any]:
    return message(name, text, *replies, role="prompter")


EXPORTED = {
    "message_tree_id": "q0",
    "tree_state": "ready_for_export",
    "prompt": asked(
        "q0",
        "Why?",
        said("a0", "Because.", rank=1),
        said("a1", "So.", asked("q1", "Really?", said("a2", "Yes."), said("a3", "No.")), rank=0),
    ),
}
EXPECTED = [
    ("user", "Why?", None, None),
    ("assistant", "Because.", 0, 1.0),
    ("assistant", "So.", 0, 0.0),
    ("user", "Really?", 2, None),
    ("assistant", "Yes.", 3, None),
    ("assistant", "No.", 3, None),
]


def table(root: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    """The rows of a message table: parents named, none inside another."""
    own = {k: v for k, v in root.items() if k != "replies"}
    rows = [{**own, "parent_id": parent, "message_tree_id": "q0", "lang": "en"}]
    return rows + [row for each in root["replies"] for row in table(each, root["message_id"])]


def shape(record: Record) -> list[Any]:
    assert isinstance(record, ConversationTree)
    return [(n.turn.role, n.turn.content, n.parent, n.rank) for n in record.nodes]


def test_a_tree_as_exported() -> None:
    said_ = "oasst (prompt='prompt'; trees with all their paths)"
    assert recognise([Row(EXPORTED, Origin("t.jsonl", 1))])[1] == said_
    assert shape(read("oasst", EXPORTED)) == EXPECTED


@given(st.permutations(table(EXPORTED["prompt"])))
def test_the_message_table_gives_the_same_tree_in_any_order(rows: list[dict[str, Any]]) -> None:
    records, faults = read_all("oasst", *rows)
    assert faults == []
    (record,) = records
    assert record.origin.line == 1 + next(i for i, r in enumerate(rows) if r["parent_id"] is None)
    assert sorted(each[:2] for each in shape(record)) == sorted(each[:2] for each in EXPECTED)
    nodes = shape(record)
    above = {text: nodes[p][1] if p is not None else None for _, text, p, _ in nodes}
    expected = {text: EXPECTED[p][1] if p is not None else None for _, text, p, _ in EXPECTED}
    assert above == expected


def test_the_table_is_recognised_beside_its_texts() -> None:
    rows = [Row(r, Origin("t.jsonl", i)) for i, r in enumerate(table(EXPORTED["prompt"]), 1)]
    labelled = [
        Row({**r.fields, "labels": {"name": ["spam"], "value": [0.0]}}, r.origin) for r in rows
    ]
    for given_rows in (rows, labelled):
        assert recognise(given_rows)[1].startswith("oasst (message_id='message_id', parent_id=")


def test_law_9_every_message_is_in_a_tree_or_a_fault() -> None:
    rows = table(EXPORTED["prompt"])
    orphan = {**rows[1], "message_id": "x0", "parent_id": "gone"}
    below = {**rows[1], "message_id": "x1", "parent_id": "x0"}
    circle = [
        {**rows[1], "message_id": "y0", "parent_id": "y1"},
        {**rows[1], "message_id": "y1", "parent_id": "y0"},
    ]
    nameless = {**rows[1], "message_id": None}
    records, faults = read_all("oasst", *rows, orphan, below, *circle, rows[1], nameless)
    assert [len(shape(record)) for record in records] == [6]
    assert {each.place: each.code for each in faults} == {
        "t.jsonl:7": "orphan",
        "t.jsonl:8": "orphan",
        "t.jsonl:9": "orphan",
        "t.jsonl:10": "orphan",
        "t.jsonl:11": "id",
        "t.jsonl:12": "id",
    }
    said_ = {each.place: each.message for each in faults}
    assert said_["t.jsonl:7"].endswith("answers 'gone', which is not in the table")
    assert said_["t.jsonl:8"].endswith("which hangs on no tree itself")


def test_a_fault_in_a_table_names_its_own_line() -> None:
    rows = table(EXPORTED["prompt"])
    _, faults = read_all("oasst", *rows[:3], {**rows[3], "text": ""}, *rows[4:], *_another())
    assert [each.place for each in faults] == ["t.jsonl:4"]


def _another() -> list[dict[str, Any]]:
    return table(asked("z0", "Hm?", said("z1", "Hm.")))


def test_the_best_path() -> None:
    record = read("oasst", EXPORTED, paths="best")
    assert isinstance(record, Conversation)
    assert [turn.content for turn in record.turns] == ["Why?", "So.", "Really?", "Yes."]
    assert fault("oasst", {"prompt": asked("q", "Why?")}, paths="best").code == "no-assistant"
    assert build("oasst", paths="best").records == (Conversation,)


def test_ranks_become_preferences() -> None:
    assert build("oasst", paths="preferences").records == (Ranking,)
    again = {"prompt": asked("q", "Hm?", said("b", "B", rank=2.0), said("a", "A", rank=0.0))}
    unranked = {"prompt": asked("q", "Hm?", said("b", "B"))}
    records, faults = read_all("oasst", EXPORTED, unranked, again, paths="preferences")
    found = [
        (r.prompt[-1].content, [a[0].content for a in r.answers], r.origin.line)
        for r in records
        if isinstance(r, Ranking)
    ]
    assert found == [("Why?", ["So.", "Because."], 1), ("Hm?", ["A", "B"], 3)]
    assert [(each.place, each.code) for each in faults] == [("t.jsonl:2", "rank")]


@pytest.mark.parametrize(
    ("root", "code"),
    [
        ("Why?", "type"),
        ({"text": "Why?", "role": "prompter", "replies": "none"}, "type"),
        (asked("q", "Why?", message("a", "So.", role="poet")), "role"),
        (asked("q", "Why?", message("a", "", role="assistant")), "empty"),
        (asked("q", "Why?", said("a", "So.", rank="first")), "rank"),
        (asked("q", "Why?", {**said("a", "So."), "deleted": True}), "deleted"),
        (asked("q", "Why?", {"role": "assistant", "replies": []}), "null"),
    ],
)
def test_tree_faults(root: Any, code: str) -> None:
    assert fault("oasst", {"prompt": root}).code == code
