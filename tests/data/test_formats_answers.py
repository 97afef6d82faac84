"""Formats of judged answers: pairs, rankings, thumbs, right answers, multiple choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from format_cases import ORIGIN, build, fault, read

from luthier.core.records import MultipleChoice, Preference, Prompt, Ranking, Row, Thumb, Turn
from luthier.data.recognise import read_records, recognise
from luthier.data.sources import read as read_source

ASKED = Turn("user", "Why?")
PROMPT = [{"role": "user", "content": "Why?"}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def said(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn("assistant", text) for text in texts)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"question": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": PROMPT, "chosen": answer("So."), "rejected": answer("No.")},
        {"prompt": "Why?", "chosen": answer("So."), "rejected": answer("No.")},
        {"prompt": "Why?", "chosen": PROMPT + answer("So."), "rejected": PROMPT + answer("No.")},
        {"chosen": PROMPT + answer("So."), "rejected": PROMPT + answer("No.")},
        {
            "chosen": "\n\nHuman: Why?\n\nAssistant: So.",
            "rejected": "\n\nHuman: Why?\n\nAssistant: No.",
        },
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " So.", "rejected": " No."},
    ],
)
def test_preferences_in_every_shape(fields: dict[str, Any]) -> None:
    assert build("preference").recognise(fields) is not None
    record = read("preference", fields)
    assert isinstance(record, Preference)
    assert record.prompt == (ASKED,)
    assert [turn.content.strip() for turn in record.chosen] == ["So."]
    assert [turn.content.strip() for turn in record.rejected] == ["No."]
    assert record.margin is None
    words = recognise([Row(fields, ORIGIN)])[1]
    assert words.startswith("preference (")
    assert ("the prompt is what both begin with" in words) == (
        not {"prompt", "question"} & fields.keys()
    )


def test_the_common_beginning_is_whole_turns_and_leaves_an_answer() -> None:
    begin = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: "
    record = read("preference", {"chosen": begin + "do", "rejected": begin + "done"})
    assert isinstance(record, Preference)
    assert [turn.content for turn in record.prompt] == ["a", "b", "c"]
    assert (record.chosen, record.rejected) == (said("do"), said("done"))
    early = read("preference", {"chosen": begin + "d", "rejected": "\n\nHuman: a\n\nAssistant: x"})
    assert isinstance(early, Preference)
    assert [turn.content for turn in early.prompt] == ["a"]
    assert [turn.content for turn in early.chosen] == ["b", "c", "d"]
    first = read("preference", {"chosen": begin + "d", "rejected": "\n\nHuman: a\n\nAssistant: b"})
    assert isinstance(first, Preference)
    assert ([t.content for t in first.prompt], first.rejected) == (["a"], said("b"))


def test_margin_and_system() -> None:
    fields = {"system": "Be kind.", "prompt": "Why?", "chosen": "So.", "rejected": "No."}
    record = read("preference", {**fields, "margin": "0.5"})
    assert isinstance(record, Preference)
    assert record.margin == 0.5
    assert record.prompt == (Turn("system", "Be kind."), ASKED)


HUMAN = "\n\nHuman: "


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": "Why?", "chosen": "So.", "rejected": "So."}, "equal"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": ""}, "empty"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": None}, "null"),
        ({"prompt": "", "chosen": "So.", "rejected": "No."}, "empty"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No.", "margin": "big"}, "type"),
        ({"prompt": "Why?", "chosen": [], "rejected": "No."}, "empty"),
        ({"chosen": "So.", "rejected": "No."}, "missing"),
        ({"prompt": "Why?", "chosen": "So."}, "missing"),
        (
            {
                "chosen": f"{HUMAN}a\n\nAssistant: b",
                "rejected": f"{HUMAN}other\n\nAssistant: b",
            },
            "prompt",
        ),
        (
            {
                "chosen": f"{HUMAN}a\n\nAssistant: b\n\nHuman: c",
                "rejected": f"{HUMAN}a\n\nAssistant: d",
            },
            "role",
        ),
        (
            {"chosen": f"{HUMAN}a\n\nAssistant:", "rejected": f"{HUMAN}a\n\nAssistant: d"},
            "empty",
        ),
    ],
)
def test_preference_faults(fields: dict[str, Any], code: str) -> None:
    assert fault("preference", fields).code == code


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Why?", "answers": ["b", "a", "c"], "ranks": [2, 1, 3]},
        {"prompt": "Why?", "responses": ["b", "a", "c"], "scores": [0.5, 9, -1]},
        {
            "prompt": f"{HUMAN}Why?\n\nAssistant: ",
            "answers": [
                {"answer": "b", "rank": 2.0},
                {"answer": "a", "rank": 1.0},
                {"answer": "c", "rank": 7.0},
            ],
        },
        {
            "prompt": PROMPT,
            "completions": [{"response": t, "score": s} for t, s in zip("bac", (2, 3, 1))],  # noqa: B905
        },
    ],
)
def test_rankings_are_best_first(fields: dict[str, Any]) -> None:
    assert recognise([Row(fields, ORIGIN)])[1].startswith("ranking (")
    assert read("ranking", fields) == Ranking(ORIGIN, (ASKED,), tuple(said(t) for t in "abc"))


def test_answers_without_ranks_are_best_first_where_the_format_is_named() -> None:
    fields = {"prompt": "Why?", "answers": ["a", answer("b")]}
    assert build("ranking").recognise(fields) is None
    assert read("ranking", fields) == Ranking(ORIGIN, (ASKED,), (said("a"), said("b")))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"answers": ["a"]}, "type"),
        ({"answers": "a"}, "type"),
        ({"answers": ["a", ""]}, "empty"),
        ({"ranks": [1]}, "rank"),
        ({"ranks": [1, "2"]}, "rank"),
        ({"ranks": [1, 1]}, "tie"),
        ({"scores": [1, None]}, "rank"),
    ],
)
def test_ranking_faults(changes: dict[str, Any], code: str) -> None:
    assert fault("ranking", {"prompt": "Why?", "answers": ["a", "b"], **changes}).code == code


@pytest.mark.parametrize(
    ("value", "good"), [(True, True), (False, False), ("True", True), ("false", False)]
)
def test_thumbs(value: Any, good: bool) -> None:
    fields = {"prompt": "Why?", "completion": "So.", "label": value}
    words = "prompt='prompt', completion='completion', label='label'"
    assert recognise([Row(fields, ORIGIN)])[1] == f"thumb ({words})"
    assert read("thumb", fields) == Thumb(ORIGIN, (ASKED,), said("So."), good)


def test_numbers_are_thumbs_where_the_format_is_named() -> None:
    fields = {"prompt": PROMPT, "completion": answer("So."), "label": 0}
    assert build("thumb").recognise(fields) is None
    assert read("thumb", fields) == Thumb(ORIGIN, (ASKED,), said("So."), False)
    assert fault("thumb", {**fields, "label": 2}).code == "type"
    assert fault("thumb", {**fields, "label": None}).code == "null"
    assert fault("thumb", {**fields, "completion": ""}).code == "empty"


def test_a_prompt_and_what_checks_its_answer() -> None:
    worked = {"question": "8 * 9?", "answer": "8 * 9 is <<8*9=72>>72.\n#### 72"}
    assert build("checkable").recognise(worked) is None
    asked = (Turn("user", "8 * 9?"),)
    assert read("checkable", worked) == Prompt(ORIGIN, asked, {"answer": "72"})
    typed = {"question": "8 * 9?", "answer": 72, "answer_type": "number"}
    words = "prompt='question', answer='answer', answer_type='answer_type'"
    assert recognise([Row(typed, ORIGIN)])[1] == f"checkable ({words})"
    assert read("checkable", typed) == Prompt(ORIGIN, asked, {"answer": "72", "type": "number"})
    truth = {"prompt": "8 * 9?", "ground_truth": "72"}
    assert recognise([Row(truth, ORIGIN)])[1].startswith("checkable (")
    assert fault("checkable", {**worked, "answer": "so #### "}).code == "empty"
    assert fault("checkable", {**worked, "answer": None}).code == "null"


@pytest.mark.parametrize(
    "fields",
    [
        {"question": "Sky?", "choices": ["red", "blue"], "answer": 1},
        {"question": "Sky?", "options": ["red", "blue"], "answer": "B"},
        {"question": "Sky?", "choice0": "red", "choice1": "blue", "answer": "1"},
        {"prompt": "Sky?", "A": "red", "B": "blue", "answer": "B"},
        {
            "question": "Sky?",
            "choices": {"text": ["red", "blue"], "label": ["1", "2"]},
            "answerKey": "2",
        },
        {"column_1": "Sky?", "column_2": "red", "column_3": "blue", "column_4": "B"},
    ],
)
def test_multiple_choice(fields: dict[str, Any]) -> None:
    assert recognise([Row(fields, ORIGIN)])[1].startswith("multiple_choice (question=")
    assert read("multiple_choice", fields) == MultipleChoice(ORIGIN, "Sky?", ("red", "blue"), 1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"answer": 2}, "answer"),
        ({"answer": -1}, "answer"),
        ({"answer": "C"}, "answer"),
        ({"answer": True}, "answer"),
        ({"answer": None}, "null"),
        ({"choices": ["red"]}, "choices"),
        ({"choices": "red"}, "choices"),
        ({"choices": ["red", ""]}, "empty"),
        ({"choices": {"text": ["red", "blue"]}}, "choices"),
    ],
)
def test_multiple_choice_faults(changes: dict[str, Any], code: str) -> None:
    fields = {"question": "Sky?", "choices": ["red", "blue"], "answer": 1, **changes}
    assert fault("multiple_choice", fields).code == code


def test_choices_that_are_numbers_keep_an_answer_that_counts() -> None:
    fields = {"question": "2 - 1?", "choices": [3, 1, 0], "answer": "1"}
    record = read("multiple_choice", fields)
    assert record == MultipleChoice(ORIGIN, "2 - 1?", ("3", "1", "0"), 1)


def test_mmlu_as_published_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "anatomy_dev.csv"
    path.write_text('Which bone?,femur,ulna,"tibia, mostly",none,C\nAnd now?,0,1,2,3,A\n')
    (source,) = read_source(f"{path}:headless")
    fmt, _ = recognise(source.rows)
    records, _ = read_records(source, fmt, {}, "refuse")
    assert [getattr(each, "answer", None) for each in records] == [2, 0]
    assert [each.origin.line for each in records] == [1, 2]
    assert getattr(records[0], "choices", ()) == ("femur", "ulna", "tibia, mostly", "none")


def test_prompts_alone_keep_what_rewards_may_ask_for() -> None:
    asked = (Turn("user", "Sort 3 1 2"),)
    row = {"prompt": "Sort 3 1 2", "answer": "1 2 3", "level": 2, "note": None}
    assert read("prompts", row) == Prompt(ORIGIN, asked, {"answer": "1 2 3", "level": 2})
    assert build("prompts").recognise(row) is None, "an answer to learn, or one to check?"
    assert recognise([Row({"question": "Who?"}, ORIGIN)])[1] == "prompts (prompt='question')"
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    found = read("prompts", {"prompt": talk})
    assert found == Prompt(ORIGIN, (Turn("system", "Be brief."), Turn("user", "Hi")), {})
    assert fault("prompts", {"answer": "7"}).code == "missing"
