"""Tagged words: schemes, lists, CoNLL columns, and spans by characters."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from format_cases import build, fault, read, read_all
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.core.records import Tagged
from luthier.data.formats._schemes import Entity, InvalidTagError, detect, entities, iob2
from luthier.data.formats._spans import words
from luthier.data.recognise import read_records, recognise
from luthier.data.sources import read as read_source


def tags(name: str, fields: dict[str, Any], **settings: Any) -> tuple[str, ...]:
    record = read(name, fields, **settings)
    assert isinstance(record, Tagged)
    return record.tags


def written(found: list[Entity], length: int, scheme: str) -> list[str]:
    """Tags of entities in any scheme: the inverse of what is tested."""
    marks = {"bioes": "BIES", "bilou": "BILU"}.get(scheme)
    made = ["O"] * length
    for number, entity in enumerate(found):
        touching = number and found[number - 1].stop == entity.start
        same = touching and found[number - 1].type == entity.type
        for index in range(entity.start, entity.stop):
            first, final = index == entity.start, index == entity.stop - 1
            if marks:
                mark = marks[3] if first and final else marks[0 if first else 2 if final else 1]
            elif scheme == "iob2":
                mark = "B" if first else "I"
            else:
                mark = "B" if first and same else "I"
            made[index] = f"{mark}-{entity.type}"
    return made


@st.composite
def marked(draw: st.DrawFn) -> tuple[list[Entity], int]:
    found, at = [], 0
    for _ in range(draw(st.integers(0, 5))):
        start = at + draw(st.integers(0, 2))
        at = start + draw(st.integers(1, 3))
        found.append(Entity(start, at, draw(st.sampled_from(["PER", "creative-work"]))))
    return found, at + draw(st.integers(0, 2))


@pytest.mark.parametrize("scheme", ["iob1", "iob2", "bioes", "bilou"])
@given(case=marked())
def test_every_scheme_comes_back_as_it_went(scheme: str, case: tuple[list[Entity], int]) -> None:
    found, length = case
    given_tags = written(found, length, scheme)
    assert entities(given_tags, scheme) == found
    converted = iob2(entities(given_tags, scheme), length)
    assert list(converted) == written(found, length, "iob2")
    assert entities(converted, "iob2") == found
    assert entities(given_tags, detect([given_tags])) == found


@pytest.mark.parametrize(
    ("scheme", "bad", "index"),
    [
        ("iob2", ["O", "I-PER"], 1),
        ("iob2", ["B-PER", "I-LOC"], 1),
        ("iob2", ["B-PER", "E-PER"], 1),
        ("iob2", ["O", "PER"], 1),
        ("iob1", ["O", "B-PER"], 1),
        ("iob1", ["I-LOC", "B-PER"], 1),
        ("bioes", ["B-PER", "I-PER"], 1),
        ("bioes", ["B-PER", "O"], 1),
        ("bioes", ["I-PER", "E-PER"], 0),
        ("bioes", ["B-PER", "E-LOC"], 1),
        ("bilou", ["S-PER"], 0),
    ],
)
def test_a_tag_that_cannot_stand_there_is_named(scheme: str, bad: list[str], index: int) -> None:
    with pytest.raises(InvalidTagError) as caught:
        entities(bad, scheme)
    assert caught.value.index == index


def test_the_scheme_is_that_of_most_rows() -> None:
    assert detect([]) == "iob2"
    assert detect([["O"], ["I-PER"], ["I-PER", "B-PER"], ["B-PER"]]) == "iob1"
    assert detect([["B-PER", "E-PER"], ["S-LOC"]]) == "bioes"
    assert detect([["B-PER", "L-PER"], ["U-LOC"]]) == "bilou"
    assert detect([["DET", "NOUN"], ["O"]]) == "plain"


@pytest.mark.parametrize("column", ["tags", "ner_tags"])
@pytest.mark.parametrize("tokens", ["tokens", "words"])
def test_lists_of_words_and_tags(tokens: str, column: str) -> None:
    fields = {tokens: ["Ann", "ran"], column: ["B-PER", "O"], "id": "1"}
    said = f"tokens='{tokens}', tags='{column}'"
    assert build("tagged").recognise(fields) == said
    assert tags("tagged", fields) == ("B-PER", "O")
    first = {**fields, column: ["I-PER", "O"]}
    assert build("tagged").recognise(first) == f"{said}; IOB1 becomes IOB2"
    assert tags("tagged", first) == ("B-PER", "O")


def test_parts_of_speech_stay_as_they_are() -> None:
    fields = {"tokens": ["a", "cat"], "tags": ["DET", "NOUN"]}
    assert tags("tagged", fields) == ("DET", "NOUN")


def test_numbers_need_names() -> None:
    fields = {"tokens": ["Ann", "ran"], "ner_tags": [1, 0]}
    assert tags("tagged", fields, names=("O", "B-PER")) == ("B-PER", "O")
    assert fault("tagged", fields).code == "tag-name"
    assert "only 1 names" in fault("tagged", fields, names=("O",)).message


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tags": ["O"]}, "tags"),
        ({"tags": None}, "null"),
        ({"tokens": []}, "empty"),
        ({"tokens": "Ann ran"}, "type"),
        ({"tokens": ["Ann", ""]}, "empty"),
        ({"tokens": ["Ann", None]}, "null"),
        ({"tags": ["B-PER", "I-LOC"]}, "tag"),
    ],
)
def test_tagged_faults(changes: dict[str, Any], code: str) -> None:
    assert (
        fault("tagged", {"tokens": ["Ann", "ran"], "tags": ["B-PER", "O"], **changes}).code == code
    )


def test_a_row_in_another_scheme_than_its_file_is_a_fault_with_its_line() -> None:
    ours = {"tokens": ["Ann", "Lee"], "tags": ["B-PER", "I-PER"]}
    other = {"tokens": ["at", "Kew"], "tags": ["O", "I-LOC"]}
    records, faults = read_all("tagged", ours, ours, other, ours)
    assert len(records) == 3
    (found,) = faults
    assert found.place == "t.jsonl:3"
    assert found.message.startswith("word 2 ('Kew'): the tag 'I-LOC' goes on with LOC")
    assert "IOB2" in found.message
    _, none = read_all("tagged", other, scheme="iob1")
    assert none == []


CONLL = """\
-DOCSTART- -X- O

Ann NNP B-PER
ran VBD O

\t
Kew NNP B-LOC
-DOCSTART- -X- O
Lee NNP B-PER"""


@pytest.mark.parametrize("suffix", [".conll", ".conll.txt", ".iob", ".iob2", ".bio", ".annotated"])
def test_conll_columns(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    path.write_text(CONLL)
    (source,) = read_source(path)
    assert [row.origin.line for row in source.rows] == [3, 7, 9]
    assert [row.fields.get("document_number") for row in source.rows] == [1, 1, 2]
    fmt, said = recognise(source.rows)
    assert said == "tagged (tokens='tokens', tags='tags')"
    records, _ = read_records(source, fmt, {}, "refuse")
    assert [getattr(each, "words", ()) for each in records] == [("Ann", "ran"), ("Kew",), ("Lee",)]


def test_conll_by_tabs_keeps_what_else_is_space(tmp_path: Path) -> None:
    path = tmp_path / "t.conll"
    path.write_bytes("New\u00a0York\tB-LOC\r\nof old\tO\r\n\r\n#\tO\r\n".encode())
    (source,) = read_source(path)
    assert [row.fields for row in source.rows] == [
        {"tokens": ["New\u00a0York", "of old"], "tags": ["B-LOC", "O"]},
        {"tokens": ["#"], "tags": ["O"]},
    ]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (b"word\n", "columns", "1 column where"),
        (b"a b\tc\td\n", "columns", "3 columns where the first line has 2"),
        (b"\tO\n", "empty", "the word is empty"),
        (b"w\t\n", "empty", "the tag is empty"),
        (b"caf\xe9\tO\n", "encoding", "byte 0xe9 at offset 12"),
    ],
)
def test_conll_faults_leave_out_their_sentence_and_no_other(
    tmp_path: Path, line: bytes, code: str, said: str
) -> None:
    path = tmp_path / "t.conll"
    path.write_bytes(b"a\tO\n\nb\tO\n" + line + b"c\tO\n\nd\tO\n")
    with pytest.raises(DataError) as caught:
        read_source(path)
    (found,) = caught.value.faults
    assert (found.code, found.place) == (code, f"{path}:4")
    assert said in found.message
    (source,) = read_source(path, malformed="skip")
    assert [row.fields["tokens"] for row in source.rows] == [["a"], ["d"]]
    assert len(source.skipped) == 1


TEXT = "Ann Lee left, at 7pm."


@pytest.mark.parametrize("column", ["spans", "entities"])
@pytest.mark.parametrize(
    "marks",
    [
        [{"start": 0, "end": 7, "label": "PER"}, {"start": 17, "end": 20, "label": "TIME"}],
        [[17, 20, "TIME"], [0, 7, "PER"]],
        [(0, 8, "PER"), (16, 20, "TIME")],
    ],
)
def test_spans(column: str, marks: Any) -> None:
    """White space at an edge is no word that a span could cut."""
    fields = {"text": TEXT, column: marks}
    assert build("spans").recognise(fields) == f"text='text', spans='{column}'"
    record = read("spans", fields)
    assert isinstance(record, Tagged)
    assert record.words == ("Ann", "Lee", "left", ",", "at", "7pm", ".")
    assert record.tags == ("B-PER", "I-PER", "O", "O", "O", "B-TIME", "O")


def test_no_spans_are_spans_too() -> None:
    assert build("spans").recognise({"text": TEXT, "spans": []}) is not None
    assert set(tags("spans", {"text": TEXT, "spans": []})) == {"O"}


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ([[0, 3, "A"], [2, 7, "B"]], "the span B [2, 7) overlaps A [0, 3)"),
        ([[0, 3, "A"], [0, 3, "A"]], "overlaps"),
        ([[0, 99, "A"]], "outside of the text of 21 characters"),
        ([[-1, 3, "A"]], "outside"),
        ([[3, 3, "A"]], "outside"),
        ([[0, 5, "A"]], "'Ann L' cuts the word 'Lee'"),
        ([[1, 3, "A"]], "'nn' cuts the word 'Ann'"),
        ([[3, 4, "A"]], "white space only"),
        ([{"start": 0, "end": 3}], "spans[0] is no span"),
        ([["0", 3, "A"]], "no whole numbers"),
        ([[0, 3, " "]], "the label in spans[0] is empty"),
        ("PER", "not a list of spans"),
        (None, "not a list of spans"),
    ],
)
def test_span_faults(marks: Any, said: str) -> None:
    assert said in fault("spans", {"text": TEXT, "spans": marks}).message


def test_words_by_script() -> None:
    for text, expected in {
        "don't": ["don", "'", "t"],
        "cafe\u0301!": ["cafe\u0301", "!"],
        "हिन्दी में": ["हिन्दी", "में"],
        "東京に行く": ["東", "京", "に", "行", "く"],
        "a_1\n b": ["a_1", "b"],
        "": [],
    }.items():
        assert [text[a:b] for a, b in words(text)] == expected


@given(st.text(), st.data())
def test_spans_on_the_grid_come_back(text: str, data: Any) -> None:
    """Words cover all that is no white space; spans of whole words keep their places."""
    places = words(text)
    covered = {i for a, b in places for i in range(a, b)}
    assert all(character.isspace() for i, character in enumerate(text) if i not in covered)
    assert all(a < b for a, b in places)
    assert all(b <= a for (_, b), (a, _) in pairwise(places))
    if not text.strip() or not text.isprintable():
        return
    cuts = sorted(data.draw(st.sets(st.integers(0, len(places)), max_size=6)))
    chosen = list(zip(cuts[::2], cuts[1::2], strict=False))
    marks = [[places[a][0], places[b - 1][1], "X"] for a, b in chosen]
    found = entities(tags("spans", {"text": text, "spans": marks}), "iob2")
    assert [(each.start, each.stop) for each in found] == chosen


def test_snips() -> None:
    pieces = [{"text": "play "}, {"text": "Hey Jude", "entity": "track"}, {"text": " now\n"}]
    assert build("snips").recognise({"data": pieces}) == "data='data'"
    record = read("snips", {"data": pieces})
    assert isinstance(record, Tagged)
    assert record.words == ("play", "Hey", "Jude", "now")
    assert record.tags == ("O", "B-track", "I-track", "O")
    cut = [{"text": "Sat", "entity": "day"}, {"text": "urday"}]
    assert "cuts the word 'Saturday'" in fault("snips", {"data": cut}).message
    assert fault("snips", {"data": [{"text": 3}]}).code == "type"
    assert fault("snips", {"data": [{"text": " "}]}).code == "empty"
