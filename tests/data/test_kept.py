"""Records that are kept in the cache come back exactly as they were."""

from __future__ import annotations

from pathlib import Path

from luthier.core import records as known
from luthier.core.records import (
    Conversation,
    ConversationTree,
    Labelled,
    MultipleChoice,
    Node,
    Origin,
    Pair,
    Preference,
    Prompt,
    Ranking,
    Record,
    SourceTarget,
    Tagged,
    Text,
    Thumb,
    Turn,
)
from luthier.data.kept import keep, kept

AT = Origin("a.jsonl", 7)
ASKED = (Turn("user", 'a "quoted"\nline\u2028'), Turn("assistant", "<think>x</think>", "[1]"))
ALL: list[Record] = [
    Text(AT, "half a pair: \ud83d"),
    Conversation(AT, ASKED),
    ConversationTree(AT, (Node(ASKED[0]), Node(ASKED[1], 0, 1.5))),
    Labelled(AT, "one", "3"),
    Labelled(AT, "two", ("b", "a"), "pair"),
    Labelled(AT, "three", 3.0),
    Tagged(AT, ("a", "b"), ("O", "B-X")),
    SourceTarget(AT, "a", "b"),
    Pair(AT, "a", "b", ("c", "d")),
    Preference(AT, ASKED[:1], ASKED[1:], ASKED[1:], 0.1),
    Ranking(AT, ASKED[:1], (ASKED[1:], ())),
    Thumb(AT, ASKED[:1], ASKED[1:], False),
    Prompt(AT, ASKED[:1], {"answer": "4", "schema": {"type": ["string", None]}}),
    MultipleChoice(AT, "q", ("a", "b"), 1),
]


def test_every_record_type_comes_back_as_it_was(tmp_path: Path) -> None:
    types = {t for t in vars(known).values() if isinstance(t, type) and issubclass(t, Record)}
    assert {type(record) for record in ALL} == types - {Record}, "a type without an example here"
    assert keep(tmp_path / "held", ALL)
    found = list(kept(tmp_path / "held"))
    assert found == ALL
    assert list(map(repr, found)) == list(map(repr, ALL))  # 3.0 is no 3, a tuple no list


def test_a_type_that_only_a_user_knows_is_not_kept(tmp_path: Path) -> None:
    class Text(known.Text):
        pass

    assert not keep(tmp_path / "held", [Text(AT, "x")])
