"""Augmenters make rows of rows: the same ones each time, at most so many, real ones untouched."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from builders import settings as least
from hypothesis import given
from hypothesis import strategies as st

from luthier.core import kinds
from luthier.core.contracts_data import Augmented, Augmenter
from luthier.core.errors import DataError
from luthier.core.generators import Question
from luthier.core.records import (
    Conversation,
    ConversationTree,
    Labelled,
    MultipleChoice,
    Origin,
    Preference,
    Record,
    SourceTarget,
    Tagged,
    Text,
    Turn,
)
from luthier.data.augmenters._answers import plain
from luthier.data.augmenters._noise import joined, words

FOLDER = "data/augmenters"
NAMES = kinds.names(FOLDER)
NOISE = ("noise", "word_dropout", "word_swap")
TEXTS = (
    "where is the parcel that was sent last week",
    "my card was swallowed by the machine at the station",
    "please tell me how to close the account of my mother",
    "the rain fell on the old roof all through the night",
    "can somebody help me with the new window of the shop",
    "a small boat crossed the river before the morning came",
)


class Scripted:
    """A language model whose answers are a function of what it is asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.seen = answer, list[Question]()

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        self.seen += questions
        return [self.answer(question.turns[-1].content, question.seed) for question in questions]


def labelled(count: int = 6) -> list[Record]:
    return [Labelled(Origin("a.csv", n + 1), TEXTS[n % 6], "ab"[n % 2]) for n in range(count)]


def clever(prompt: str, seed: int) -> str:
    """Turns a text round, or makes rows of the keys shown."""
    rows = [line for line in prompt.splitlines() if line.startswith("{")]
    if not rows:
        return " ".join(reversed(prompt.split("\n\n", 1)[1].split()))
    rng = random.Random(seed)
    keys = json.loads(rows[0])
    return "\n".join(
        json.dumps({k: " ".join(rng.choices("abcdefgh", k=8)) for k in keys}) for _ in range(9)
    )


def augmenter(kind: str, **settings: Any) -> Augmenter:
    values = {**least(FOLDER, kind), **settings}
    made: Augmenter = kinds.build(FOLDER, kinds.config(FOLDER, values))
    return made


def run(kind: str, records: Sequence[Record], seed: int = 0, **settings: Any) -> Augmented:
    made = augmenter(kind, **settings)
    return made.augment(records, made.wanted(records), seed, Scripted(clever))


# The contract, walked.


@pytest.mark.parametrize("kind", NAMES)
def test_the_contract(kind: str) -> None:
    records, made = labelled(), augmenter(kind)
    wanted = made.wanted(records)
    assert wanted >= 1
    before = repr(records)
    found = made.augment(records, wanted, 7, Scripted(clever))
    again = made.augment(records, wanted, 7, Scripted(clever))
    assert repr(records) == before
    assert 0 < len(found.records) <= wanted
    assert found.records == again.records, "the same seed makes the same rows"
    other = made.augment(records, wanted, 8, Scripted(clever))
    if kind != "paraphrase":  # what this model says there does not depend on the seed
        assert other.records != found.records
    real = {record.origin for record in records}
    assert all(record.origin in real for record in found.records), "the origin is the parent's"
    assert not {r.text for r in records if isinstance(r, Labelled)} & {
        r.text for r in found.records if isinstance(r, Labelled)
    }
    for count in (0, 1, 3):
        few = made.augment(records, count, 7, Scripted(clever))
        assert len(few.records) <= count
    assert isinstance(made.near, bool)


@pytest.mark.parametrize("kind", NAMES)
def test_labels_and_what_is_learned_stay(kind: str) -> None:
    talk = [
        Conversation(Origin("a", n), (Turn("user", text), Turn("assistant", f"answer {n} is so")))
        for n, text in enumerate(TEXTS)
    ]
    found = run(kind, talk).records
    assert found
    for record in found:
        assert isinstance(record, Conversation)
        assert [turn.role for turn in record.turns] == ["user", "assistant"]
        if kind != "new_examples":
            assert record.turns[1] == talk[record.origin.line].turns[1]
            assert record.turns[0] != talk[record.origin.line].turns[0]
    parents = {r.origin: r.label for r in labelled() if isinstance(r, Labelled)}
    for record in run(kind, labelled()).records:
        assert isinstance(record, Labelled)
        assert record.label == parents[record.origin]


# Noise on words.


@pytest.mark.parametrize("kind", NOISE)
@given(text=st.text(max_size=80))
def test_noise_takes_any_text(kind: str, text: str) -> None:
    found = run(kind, [Labelled(Origin("a", 1), text, "x")], copies=2)
    assert len(found.records) + sum(found.failed.values()) == 2
    assert "\ud800" not in repr(found.records)


@given(text=st.text(max_size=80))
def test_words_and_gaps_make_the_text(text: str) -> None:
    assert joined(*words(text)) == text


def changed(kind: str, text: str = TEXTS[1], copies: int = 40, **settings: Any) -> list[str]:
    records = [Labelled(Origin("a", 1), text, "x")]
    found = run(kind, records, copies=copies, **settings).records
    return [record.text for record in found if isinstance(record, Labelled)]


def test_words_are_left_out() -> None:
    text = TEXTS[1].split()
    counts = []
    for said in changed("word_dropout", copies=64, share=0.2):
        left = said.split()
        rest = iter(text)
        assert all(word in rest for word in left), "in their order"
        assert said == " ".join(left)
        counts.append(len(text) - len(left))
    assert min(counts) >= 1
    assert 1.4 < sum(counts) / len(counts) < 2.8, "a fifth of ten words"
    assert set(changed("word_dropout", "one two", share=1.0)) == {"one", "two"}


def test_neighbours_change_places() -> None:
    text = TEXTS[1].split()
    for said in changed("word_swap"):
        moved = [i for i, (a, b) in enumerate(zip(text, said.split(), strict=True)) if a != b]
        assert len(moved) == 2
        assert moved[1] == moved[0] + 1
    for said in changed("word_swap", share=0.4):
        assert sorted(said.split()) == sorted(text)
        assert sum(a != b for a, b in zip(text, said.split(), strict=True)) == 4
    assert changed("word_swap", "no no no") == []
    assert set(changed("word_swap", "你好")) == {"好你"}, "a character is a word there"


def test_typing_errors() -> None:
    for error, size in (("drop", -1), ("double", 1), ("swap", 0), ("key", 0)):
        for said in changed("noise", errors=[error]):
            pairs = list(zip(TEXTS[1].split(), said.split(), strict=True))
            [(before, after)] = [pair for pair in pairs if pair[0] != pair[1]]
            assert len(after) == len(before) + size
            if error == "swap":
                assert sorted(after) == sorted(before)
            if error == "key":
                [(right, wrong)] = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
                assert wrong in {"s": "adwexz", "h": "gjyubn"}.get(right, wrong)
    assert changed("noise", "12345 of a@b.cc at x/y in 3rd no") == []
    assert set(changed("noise", "QQQ", errors=["key"])) <= {
        "QQW",
        "QWQ",
        "WQQ",
        "AQQ",
        "QAQ",
        "QQA",
    }
    assert set(changed("noise", "qqq", errors=["key"], keyboard="azerty")) & {"sqq", "zqq", "wqq"}
    assert changed("noise", "zzz", errors=["swap"]) == []


def test_copies_differ_and_short_texts_are_counted() -> None:
    assert len(set(changed("noise"))) > 20
    found = run("word_swap", [Labelled(Origin("a", 1), "one", "x"), *labelled(2)])
    assert (len(found.records), found.failed) == (2, {"too short to change": 1})


def test_noise_depends_on_the_row_and_not_on_its_neighbours_or_its_folder() -> None:
    rows = labelled()
    alone = run("noise", rows[2:3]).records[0]
    assert alone in run("noise", rows).records
    moved = Labelled(Origin("elsewhere/a.csv", 3), TEXTS[2], "a")
    [other] = run("noise", [moved]).records
    assert isinstance(other, Labelled)
    assert isinstance(alone, Labelled)
    assert other.text == alone.text


@pytest.mark.parametrize("kind", [*NOISE, "paraphrase"])
@pytest.mark.parametrize(
    "record",
    [
        Text(Origin("a", 1), TEXTS[0]),
        Tagged(Origin("a", 1), ("one", "two"), ("O", "O")),
        ConversationTree(Origin("a", 1), ()),
    ],
    ids=lambda record: type(record).__name__,
)
def test_rows_that_are_learned_whole_are_refused(kind: str, record: Record) -> None:
    with pytest.raises(DataError, match="would be learned"):
        run(kind, [record])


@pytest.mark.parametrize(
    "record",
    [
        SourceTarget(Origin("a", 1), TEXTS[0], "target"),
        MultipleChoice(Origin("a", 1), TEXTS[0], ("x", "y"), 0),
        Preference(
            Origin("a", 1),
            (Turn("system", "be kind"), Turn("user", TEXTS[0])),
            (Turn("assistant", "good"),),
            (Turn("assistant", "bad"),),
        ),
        Labelled(Origin("a", 1), TEXTS[0], "x", TEXTS[1]),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_is_only_read_is_changed(record: Record) -> None:
    [made] = run("word_swap", [record]).records
    assert made != record
    kept = ("target='target'", "choices=('x', 'y')", "content='bad'", "content='be kind'")
    for part in kept:
        assert (part in repr(record)) == (part in repr(made))


# Asked of a language model.


def test_a_paraphrase_is_asked_for_and_its_numbers_are_held_to() -> None:
    rows = [Labelled(Origin("a", n), text, "x") for n, text in enumerate(("send 3 of 12", "nine"))]
    answers = {"send 3 of 12": "12 letters, 3 of them", "nine": '"9"'}
    model = Scripted(lambda prompt, _: answers[prompt.split("\n\n", 1)[1]])
    made = augmenter("paraphrase")
    found = made.augment(rows, 2, 0, model)
    assert [r.text for r in found.records if isinstance(r, Labelled)] == ["12 letters, 3 of them"]
    assert found.failed == {"with other numbers than their row": 1}
    assert [question.rows for question in model.seen] == [(rows[0].origin,), (rows[1].origin,)]
    assert model.seen[0].turns[0].content.startswith("Say the following text in other words.")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "without an answer"),
        ("<think>hm</think>", "without an answer"),
        ("x" * 500, "of quite another length than their row"),
        ("so", "of quite another length than their row"),
    ],
)
def test_answers_that_are_no_paraphrase(answer: str | None, why: str) -> None:
    found = augmenter("paraphrase").augment(labelled(3), 3, 0, Scripted(lambda *_: answer))
    assert (list(found.records), found.failed) == ([], {why: 3})


def test_back_and_forth_through_a_language() -> None:
    def translate(prompt: str, _seed: int) -> str:
        head, text = prompt.split("\n\n", 1)
        language = re.search("into (\\w+)", head)
        assert language
        return f"{text} {language.group(1)}"

    model = Scripted(translate)
    made = augmenter("paraphrase", via="German", language="English")
    found = made.augment([Labelled(Origin("a", 1), "take {language} home", "x")], 1, 0, model)
    assert [r.text for r in found.records if isinstance(r, Labelled)] == [
        "take {language} home German English"
    ]
    assert len(model.seen) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"via": "German"}, "go together"),
        ({"language": "German"}, "go together"),
        ({"prompt": "again"}, "{text}"),
        ({"via": "A", "language": "B", "prompt": "x {text}"}, "no meaning with 'via'"),
    ],
)
def test_settings_that_contradict(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        augmenter("paraphrase", **settings)


def test_new_rows_are_asked_for_class_by_class() -> None:
    model = Scripted(clever)
    made = augmenter("new_examples", rows=7, shown=2, asked=3)
    found = made.augment(labelled(), 7, 0, model)
    labels = [record.label for record in found.records if isinstance(record, Labelled)]
    assert (labels.count("a"), labels.count("b")) == (4, 3)
    assert len(model.seen) == 3, "three of class a, one more of it, three of class b"
    first = model.seen[0].turns[0].content
    assert 'Here are 2 examples of the class "a", one JSON object a line:' in first
    assert "Write 3 new ones" in first
    assert sum(text in first for text in TEXTS[::2]) == 2
    assert not any(text in first for text in TEXTS[1::2]), "no row of another class"
    assert len(model.seen[0].rows) == 2
    assert found.failed == {"more than were asked for": 6 + 8 + 6}


def test_only_named_classes_are_asked_for() -> None:
    found = run("new_examples", labelled(), rows=4, classes=["b"])
    assert {r.label for r in found.records if isinstance(r, Labelled)} == {"b"}
    with pytest.raises(DataError, match="no training row is of class 'c'"):
        run("new_examples", labelled(), classes=["c"])


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ('{"text": "one"}\n{"text": "two"}', ["one", "two"]),
        ('```json\n[{"text": "one"}, {"text": " two "}]\n```', ["one", "two"]),
        ('Here you are:\n{"text": "one"},\n', ["one"]),
        ('{"text": ""}\n{"text": 3}\n{"said": "x"}\n{"text": "x", "label": "y"}', []),
        ('{"text": "half', []),
        ("[" * 100_000, []),
        ('{"text": "a \\ud800 b"}', ["a ? b"]),
        (None, []),
    ],
)
def test_answers_are_read_or_counted(answer: str | None, texts: list[str]) -> None:
    made = augmenter("new_examples", rows=2, asked=2, classes=["a"])
    found = made.augment(labelled(), 2, 0, Scripted(lambda *_: answer))
    assert [r.text for r in found.records if isinstance(r, Labelled)] == texts
    assert sum(found.failed.values()) == 2 - len(texts)


def test_rows_that_cannot_be_asked_for() -> None:
    numbers = [Labelled(Origin("a", 1), "x", 0.5)]
    with pytest.raises(DataError, match="no row is a text with classes"):
        run("new_examples", numbers)
    found = run("new_examples", [Text(Origin("a", 1), "a story"), *numbers], rows=3)
    assert len(found.records) == 3
    assert all(isinstance(record, Text) for record in found.records)


def test_answers_are_unwrapped() -> None:
    assert plain("<think>\nso\n</think>\n «oui» ") == "oui"
    assert plain('"a" and "b"') == '"a" and "b"'
    assert plain('"') == '"'
