"""Formats of texts that become texts: pairs, summaries, solutions, named keys, instances."""

from __future__ import annotations

from typing import Any

import pytest
from format_cases import ORIGIN, build, fault, read, read_all

from luthier.core import kinds
from luthier.core.records import Conversation, ConversationTree, Row, SourceTarget, Text
from luthier.data.recognise import recognise


@pytest.mark.parametrize(
    ("first", "second"),
    [("source", "target"), ("src", "tgt"), ("document", "summary"), ("article", "highlights")],
)
def test_source_and_target(first: str, second: str) -> None:
    fields = {first: "A house.", second: "Una casa.", "id": 3}
    said = f"source_target (source='{first}', target='{second}')"
    assert recognise([Row(fields, ORIGIN)])[1] == said
    assert read("source_target", fields) == SourceTarget(ORIGIN, "A house.", "Una casa.")
    turned = read("source_target", fields, reverse=True)
    assert turned == SourceTarget(ORIGIN, "Una casa.", "A house.")
    assert fault("source_target", {**fields, second: " "}).code == "empty"
    assert fault("source_target", {**fields, first: None}).code == "null"
    assert fault("source_target", {**fields, first: 3}).code == "type"


def test_law_9_of_several_targets_the_first_is_taken_and_that_is_said() -> None:
    one = {"source": ["First.", "", "Second."], "target": ["Short."]}
    two = {**one, "target": ["Short.", "Brief."]}
    assert read("source_target", two) == SourceTarget(ORIGIN, "First. Second.", "Short.")
    assert "of several targets" not in recognise([Row(one, ORIGIN)])[1]
    said = recognise([Row(one, ORIGIN), Row(two, ORIGIN)])[1]
    assert said.endswith("target='target'; of several targets the first is taken)")
    assert fault("source_target", {**one, "target": []}).code == "empty"
    assert fault("source_target", {**one, "target": ["", "Brief."]}).code == "empty"
    assert fault("source_target", {**one, "source": [""]}).code == "empty"
    assert fault("source_target", {**one, "source": ["a", None]}).code == "null"


PAIRS = "Go.\tVe.\n\nI won.\tGané.\tCC-BY (Tatoeba)\r\nalone\nRun!\t\n"


def test_lines_of_pairs_are_records_where_the_format_is_named() -> None:
    assert recognise([Row({"text": PAIRS}, ORIGIN)])[1].startswith("text (")
    records, faults = read_all("source_target", {"text": PAIRS})
    assert [(getattr(r, "source", ""), getattr(r, "target", "")) for r in records] == [
        ("Go.", "Ve."),
        ("I won.", "Gané."),
    ]
    assert [record.origin.line for record in records] == [1, 3]
    assert [each.place for each in faults] == ["t.jsonl:4", "t.jsonl:5"]
    assert faults[0].message == "1 cell where a pair is expected"
    (only,), _ = read_all("source_target", {"text": PAIRS}, limit=1)
    assert only == records[0]


@pytest.mark.parametrize(
    "solutions",
    [
        ["print(1)", "print('1')"],
        {"language": [3, 3], "solution": ["print(1)", "print('1')"]},
        '["print(1)", "print(\'1\')"]',
    ],
)
def test_a_problem_with_many_solutions_is_a_tree(solutions: Any) -> None:
    fields = {"description": "Print one.", "solutions": solutions, "difficulty": 7}
    said = "solutions (problem='description', solutions='solutions')"
    assert recognise([Row(fields, ORIGIN)])[1] == said
    record = read("solutions", fields)
    assert isinstance(record, ConversationTree)
    assert [(n.turn.role, n.turn.content, n.parent) for n in record.nodes] == [
        ("user", "Print one.", None),
        ("assistant", "print(1)", 0),
        ("assistant", "print('1')", 0),
    ]
    fewer = read("solutions", fields, most=1)
    assert isinstance(fewer, ConversationTree)
    assert len(fewer.nodes) == 2
    assert str(build("solutions", most=1).recognise(fields)).endswith("; at most 1 of a problem")


@pytest.mark.parametrize(
    ("solutions", "code"),
    [([], "empty"), ([""], "empty"), ([None], "null"), ("print(1)", "type"), ("[1", "type")],
)
def test_solution_faults(solutions: Any, code: str) -> None:
    assert fault("solutions", {"problem": "p", "solutions": solutions}).code == code


COMBINED = """\
Below is a task.

### Instruct:
Add the numbers.

### Input:
1 2

### Output:
3

### End"""


def turns(written: str, **settings: Any) -> list[tuple[str, str]]:
    record = read("combined", {"text": written}, **settings)
    assert isinstance(record, Conversation)
    return [(turn.role, turn.content) for turn in record.turns]


def test_one_text_with_named_keys() -> None:
    assert turns(COMBINED) == [
        ("system", "Below is a task."),
        ("user", "Add the numbers.\n\n1 2"),
        ("assistant", "3"),
    ]
    alpaca = "### Instruction: Say hi.\n### Input:\n\n### Response: hi ### End of it"
    assert turns(alpaca) == [("user", "Say hi."), ("assistant", "hi ### End of it")]
    rounds = "### Instruct: a\n### Output: b\n### End\n### Instruct: c\n### Output: d\n"
    assert [content for _, content in turns(rounds)] == ["a", "b", "c", "d"]


def test_the_keys_are_the_recipes_to_name() -> None:
    settings = {"instruct": ["Q:"], "input": [], "output": ["A:"], "end": []}
    assert turns("Q: why?\nA: so\n### Output: it is", **settings) == [
        ("user", "why?"),
        ("assistant", "so\n### Output: it is"),
    ]
    with pytest.raises(kinds.BadConfigError, match="some text of its own"):
        build("combined", instruct=["Q:"], output=["Q:"])


def test_named_keys_are_found_where_raw_text_is_not_learned() -> None:
    rows = [Row({"text": COMBINED}, ORIGIN)]
    said = "combined (the keys ### Instruct:, ### Input:, ### Output:, ### End in 'text')"
    assert recognise(rows, accept=(Conversation, ConversationTree))[1] == said
    assert recognise(rows, accept=(Text, Conversation))[1] == "text (text='text')"
    assert recognise(rows)[1] == "text (text='text')"


@pytest.mark.parametrize(
    ("written", "code", "said"),
    [
        ("### Output: b", "keys", "has no '### Instruct:'"),
        ("### Instruct: a", "keys", "has no '### Output:'"),
        ("no keys", "keys", "has no '### Instruct:'"),
        ("### Instruct: a\n### Output:\n### End", "empty", "behind '### Output:'"),
        ("### Instruct:\n### Output: b", "empty", "behind '### Instruct:'"),
        ("### Instruct: a\n### Output: b\n### Response: c", "keys", "twice"),
        ("### Instruct: a\n### Output: b\n### End\nmore", "keys", "text behind '### End'"),
    ],
)
def test_combined_faults(written: str, code: str, said: str) -> None:
    found = fault("combined", {"text": written})
    assert found.code == code
    assert said in found.message


def test_several_instances_of_an_instruction_are_records_each() -> None:
    row = {
        "id": "seed_1",
        "instruction": "Add.",
        "instances": [{"input": "1 2", "output": "3"}, {"input": "", "output": "nothing"}],
    }
    said = "instruction (instruction='instruction', instances='instances')"
    assert recognise([Row(row, ORIGIN)])[1] == said
    records, faults = read_all("instruction", row, {**row, "instances": []})
    assert [[t.content for t in getattr(r, "turns", ())] for r in records] == [
        ["Add.\n\n1 2", "3"],
        ["Add.", "nothing"],
    ]
    assert [each.place for each in faults] == ["t.jsonl:2"]
