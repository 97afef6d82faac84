"""Recognition: what rows are is found, said aloud, or asked for; rows to records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import DataError, RecipeError
from luthier.core.records import Conversation, Labelled, Origin, Row, Text, Thumb
from luthier.data.recognise import read_records, recognise, rename
from luthier.data.sources import Source, read


def rows(*fields: dict[str, Any]) -> list[Row]:
    return [Row(each, Origin("t.jsonl", line)) for line, each in enumerate(fields, start=1)]


def source(*fields: dict[str, Any]) -> Source:
    return Source("t.jsonl", tuple(rows(*fields)), (), "")


def failure(*args: Any, **settings: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        recognise(*args, **settings)
    return caught.value


LABELLED = {"text": "hi", "label": "greeting"}
ASKED = {"question": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "a", "title": "b"}, "text (text='text')"),
        (ASKED, "prompt_response (prompt='question', response='answer')"),
        (
            {"instruction": "a", "input": "", "output": "c", "text": "all of it"},
            "instruction (instruction='instruction', input='input', output='output')",
        ),
        (
            {"instruction": "a", "context": "b", "response": "c", "category": "d"},
            "instruction (instruction='instruction', input='context', output='response')",
        ),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages (messages='messages')"),
        (LABELLED, "label (text='text', label='label')"),
        ({"text": "a", "labels": ["x"]}, "label (text='text', label='labels')"),
    ],
)
def test_what_was_found_is_said(fields: dict[str, Any], said: str) -> None:
    assert recognise(rows(fields, fields))[1] == said


def test_a_faulty_row_neither_hides_the_format_nor_passes(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n' * 9 + '{"question": "q"}\n')
    (found,) = read(path)
    fmt, said = recognise(found.rows)
    assert said.startswith("prompt_response")
    with pytest.raises(DataError) as caught:
        read_records(found, fmt, {}, "refuse")
    assert caught.value.faults[0].place == f"{path}:10"
    records, skipped = read_records(found, fmt, {}, "skip")
    assert (len(records), [fault.place for fault in skipped]) == (9, [f"{path}:10"])


def test_ten_faults_and_a_count() -> None:
    bad = source(*[{"question": "q", "answer": ""}] * 25, ASKED)
    fmt, _ = recognise(bad.rows)
    with pytest.raises(DataError) as caught:
        read_records(bad, fmt, {}, "refuse")
    assert len(caught.value.faults) == 11
    assert caught.value.faults[10].message == "15 more rows are wrong"


def test_skipping_every_row_is_an_error() -> None:
    bad = source({"question": "q", "answer": None})
    with pytest.raises(DataError):
        read_records(bad, recognise(bad.rows)[0], {}, "skip")


def test_the_objective_decides_between_formats() -> None:
    both = rows({"question": "q", "answer": "a", "text": "t", "label": "l"})
    assert recognise(both, accept=(Labelled,))[1].startswith("label")
    assert recognise(both, accept=(Conversation, Text))[1].startswith("prompt_response")
    found = failure(both)
    assert found.faults[0].code == "ambiguous"
    assert "label (text='text', label='label') or prompt_response" in str(found)


def test_rows_that_the_objective_does_not_learn_from() -> None:
    found = failure(rows(LABELLED), accept=(Conversation, Text))
    assert found.faults[0].code == "format"
    assert "the rows are label (text='text', label='label')" in str(found)
    assert "learns from Conversation, Text" in str(found)
    assert "prompt_response" in found.faults[0].cure
    assert recognise(rows(LABELLED), "text", (Conversation, Text))[1] == "text"


def test_rows_that_no_format_knows() -> None:
    found = failure(rows({"frage": "q", "antwort": "a"}))
    assert found.faults[0].code == "unrecognised"
    assert "columns: frage, antwort" in str(found)
    assert "prompt_response: A prompt and its response" in found.faults[0].cure


def test_renames_are_applied_before_and_said_as_they_are() -> None:
    given = source({"frage": "q", "antwort": "a"})
    columns = {"prompt": "frage", "response": "antwort"}
    fmt, said = recognise(given.rows, columns=columns)
    assert said == "prompt_response (prompt='frage', response='antwort')"
    (record,), _ = read_records(given, fmt, columns, "refuse")
    assert isinstance(record, Conversation)
    assert [turn.content for turn in record.turns] == ["q", "a"]


def test_a_rename_settles_what_is_ambiguous() -> None:
    given = rows({"question": "q", "answer": "a", "input": "i", "output": "o"})
    assert failure(given).faults[0].code == "unrecognised"
    _, said = recognise(given, columns={"prompt": "input", "response": "output"})
    assert said == "prompt_response (prompt='input', response='output')"


def test_a_rename_to_another_usual_name_will_do() -> None:
    given = rows({"frage": "q", "antwort": "a"})
    _, said = recognise(given, columns={"question": "frage", "answer": "antwort"})
    assert said == "prompt_response (prompt='frage', response='antwort')"


def test_a_rename_must_mean_something_to_the_format_that_was_found() -> None:
    found = failure(rows({**LABELLED, "extra": "e"}), columns={"output": "extra"})
    assert found.faults[0].message == "columns: 'output' is no field of the format 'label'"


def test_rename_swaps_and_covers() -> None:
    (row,) = rows({"prompt": "p", "question": "q", "id": 1})
    assert rename(row, {"prompt": "question"}).fields == {"prompt": "q", "id": 1}
    swapped = rename(row, {"prompt": "question", "question": "prompt"})
    assert swapped.fields == {"prompt": "q", "question": "p", "id": 1}
    assert rename(row, {"response": "absent"}) is row


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"prompt": "qestion"}, "did you mean 'question'?"),
        ({"promt": "question", "response": "answer"}, "did you mean 'prompt'?"),
        ({"prompt": "question", "response": "question"}, "'question' is named for two fields"),
    ],
)
@pytest.mark.parametrize("name", ["auto", "prompt_response"])
def test_renames_without_effect_are_refused(columns: dict[str, str], said: str, name: str) -> None:
    found = failure(rows(ASKED), name, columns=columns)
    assert found.faults[0].code == "columns"
    assert said in str(found)


def test_a_named_format_is_taken_and_checked() -> None:
    assert recognise(rows(LABELLED), "text")[1] == "text"
    assert recognise(rows({"question": "q"}, ASKED), "prompt_response")[1].startswith("prompt_")
    found = failure(rows(LABELLED, LABELLED), "messages")
    assert found.faults[0].message.startswith("the rows are not in the format 'messages': Conv")
    assert found.faults[1].place == "t.jsonl:1"
    assert failure(rows(LABELLED), "label", (Text,)).faults[0].code == "format"
    with pytest.raises(RecipeError, match="did you mean 'prompt_response'"):
        recognise(rows(ASKED), "prompt_respons")


OWN = '''
"""Thumbs."""
from luthier.core.contracts import KindConfig
from luthier.core.records import Thumb, Turn

class Config(KindConfig):
    kind: str = "own_thumbs.format"

class Format:
    records = (Thumb,)
    def __init__(self, config): pass
    def recognise(self, fields): return "thumbs" if "good" in fields else None
    def read(self, row):
        turns = (Turn("user", "a"),), (Turn("assistant", "b"),)
        return Thumb(row.origin, *turns, row.fields["good"])
'''


def test_a_format_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_thumbs").mkdir()
    (tmp_path / "own_thumbs" / "__init__.py").write_text("")
    (tmp_path / "own_thumbs" / "format.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = source({"good": True, "gut": 1})
    fmt, said = recognise(given.rows, "own_thumbs.format", (Thumb,))
    assert said == "own_thumbs.format (thumbs)"
    (record,), _ = read_records(given, fmt, {}, "refuse")
    assert isinstance(record, Thumb)
    assert record.good
    with pytest.raises(RecipeError, match="cannot import"):
        recognise(given.rows, "no_such.format")


def test_no_rows() -> None:
    assert failure([]).faults[0].code == "no-rows"
