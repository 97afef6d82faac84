"""Formats: a contract that every file in the folder keeps, then what each of ours reads."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest

from luthier.core import kinds
from luthier.core.contracts import Format, KindConfig
from luthier.core.errors import DataError, Fault
from luthier.core.records import Conversation, Labelled, Origin, Record, Row, Text, Turn
from luthier.data.recognise import recognise

ORIGIN = Origin("train.jsonl", 718)
NAMES = kinds.names("data/formats")


def build(name: str) -> Format:
    fmt: Format = kinds.build("data/formats", kinds.config("data/formats", name))
    return fmt


def read(name: str, **fields: Any) -> Record:
    return build(name).read(Row(fields, ORIGIN))


def turns(name: str, **fields: Any) -> list[tuple[str, str]]:
    record = read(name, **fields)
    assert isinstance(record, Conversation)
    return [(turn.role, turn.content) for turn in record.turns]


def fault(name: str, **fields: Any) -> Fault:
    with pytest.raises(DataError) as caught:
        read(name, **fields)
    (found,) = caught.value.faults
    assert found.place == "train.jsonl:718"
    return found


def labelled(**fields: Any) -> Labelled:
    record = read("label", **fields)
    assert isinstance(record, Labelled)
    return record


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    """Holds for every file in the folder."""

    def test_has_a_config_records_and_a_summary(self, name: str) -> None:
        config = kinds.config("data/formats", name)
        assert isinstance(config, KindConfig)
        assert config.kind == name
        records = build(name).records
        assert records
        assert all(issubclass(kind, Record) and kind is not Record for kind in records)
        assert kinds.summary("data/formats", name).endswith(".")

    @pytest.mark.parametrize("fields", [{}, {"zzz": 1}, {"id": None}])
    def test_leaves_rows_that_are_not_its_own(self, name: str, fields: dict[str, Any]) -> None:
        assert build(name).recognise(fields) is None

    @pytest.mark.parametrize("fields", [{}, {"zzz": 1, "id": 2}])
    def test_refuses_them_with_place_cause_and_cure(
        self, name: str, fields: dict[str, Any]
    ) -> None:
        found = fault(name, **fields)
        assert found.code
        assert found.cure
        assert all(column in found.message for column in fields)

    @pytest.mark.parametrize("bad", [None, "", " \n", 3, True, {"a": 1}, [3], [None], "\ud83d"])
    def test_a_bad_cell_is_an_error_and_never_a_traceback(self, name: str, bad: Any) -> None:
        """Every documented column in turn holds every kind of rubbish."""
        fmt = build(name)
        columns = getattr(fmt, "fields", ())
        for column in columns:
            row = Row({**dict.fromkeys(columns, "fine"), column: bad}, ORIGIN)
            fmt.recognise(row.fields)
            with contextlib.suppress(DataError):
                assert isinstance(fmt.read(row), fmt.records)


@pytest.mark.parametrize("column", ["text", "content", "document"])
def test_text(column: str) -> None:
    assert build("text").recognise({column: "a", "title": "b"}) == f"text='{column}'"
    assert read("text", **{column: " a\n", "title": "b"}) == Text(ORIGIN, " a\n")


@pytest.mark.parametrize("other", ["label", "response", "messages", "target", "chosen"])
def test_text_is_not_alone_beside_what_it_belongs_to(other: str) -> None:
    assert build("text").recognise({"text": "a", other: "b"}) is None
    assert read("text", text="a", **{other: "b"}) == Text(ORIGIN, "a")


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("prompt", "response"),
        ("prompt", "completion"),
        ("question", "answer"),
        ("instruction", "response"),
        ("instruction", "output"),
        ("input", "output"),
        ("query", "answer"),
        ("problem", "solution"),
        ("question", "response"),
    ],
)
def test_prompt_and_response(prompt: str, response: str) -> None:
    fields = {prompt: "Why?", response: " Because.", "id": 3}
    said = f"prompt='{prompt}', response='{response}'"
    assert build("prompt_response").recognise(fields) == said
    assert turns("prompt_response", **fields) == [("user", "Why?"), ("assistant", " Because.")]


def test_prompt_and_response_with_a_system_text() -> None:
    fields = {"system_prompt": "Be brief.", "question": "Why?", "answer": "So."}
    assert build("prompt_response").recognise(fields) == (
        "prompt='question', response='answer', system='system_prompt'"
    )
    assert turns("prompt_response", **fields)[0] == ("system", "Be brief.")
    for nothing in (None, "", " "):
        assert len(turns("prompt_response", **{**fields, "system_prompt": nothing})) == 2
    assert fault("prompt_response", **{**fields, "system_prompt": 3}).code == "type"


def test_names_that_belong_together_settle_what_could_be_two() -> None:
    fields = {"question": "q", "answer": "a", "input": "i"}
    assert build("prompt_response").recognise(fields) == "prompt='question', response='answer'"
    both = {"question": "q", "answer": "a", "input": "i", "output": "o"}
    assert build("prompt_response").recognise(both) is None
    found = fault("prompt_response", **both)
    assert found.code == "ambiguous"
    assert "'question', 'input' could each be the prompt" in found.message
    assert build("prompt_response").recognise({"prompt": "p", **both, "response": "r"})


def test_an_instruction_with_an_input_is_more_than_a_prompt() -> None:
    fields = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert build("prompt_response").recognise(fields) is None
    assert fault("prompt_response", **fields).cure == "say `format: instruction`"


@pytest.mark.parametrize(
    ("bad", "code"),
    [(None, "null"), (float("nan"), "null"), ("", "empty"), (" \n", "empty"), (4, "type")],
)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_prompt_and_response_faults(column: str, bad: Any, code: str) -> None:
    found = fault("prompt_response", **{"question": "q", "answer": "a", column: bad})
    assert found.code == code
    assert f"'{column}'" in found.message


def test_a_missing_column_names_those_that_exist() -> None:
    found = fault("prompt_response", question="q", anser="a")
    assert found.message == "no column for the response; the row has: 'question', 'anser'"
    assert "columns: {response: its_name}" in found.cure


def test_half_a_surrogate_pair_is_refused() -> None:
    found = fault("text", text="wave \ud83d")
    assert found.code == "encoding"
    assert "\\ud83d, character 6" in found.message


@pytest.mark.parametrize(("given", "output"), [("input", "output"), ("context", "response")])
def test_instruction(given: str, output: str) -> None:
    fields = {"instruction": "Add.", given: "1 2", output: "3"}
    assert build("instruction").recognise(fields) == (
        f"instruction='instruction', input='{given}', output='{output}'"
    )
    assert turns("instruction", **fields) == [("user", "Add.\n\n1 2"), ("assistant", "3")]
    for nothing in ("", "  ", None):
        assert turns("instruction", **{**fields, given: nothing})[0] == ("user", "Add.")
    assert turns("instruction", system="Be exact.", **fields)[0] == ("system", "Be exact.")
    assert fault("instruction", **{**fields, output: ""}).code == "empty"
    assert fault("instruction", **{**fields, given: 3}).code == "type"


def test_instruction_without_an_input_is_left_to_prompt_and_response() -> None:
    assert build("instruction").recognise({"instruction": "a", "output": "b"}) is None
    assert turns("instruction", instruction="a", output="b") == [("user", "a"), ("assistant", "b")]


CHAT = [
    {"role": "system", "content": ""},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
]


@pytest.mark.parametrize("column", ["messages", "conversations", "dialog"])
def test_messages(column: str) -> None:
    fields = {column: CHAT, "id": 1}
    assert build("messages").recognise(fields) == f"messages='{column}'"
    assert turns("messages", **fields) == [("system", ""), ("user", "hi"), ("assistant", "hello")]


def test_sharegpt_names_and_a_system_column() -> None:
    talk = [{"from": "human", "value": "hi"}, {"from": "GPT", "value": "hello"}]
    fields = {"conversations": talk, "system": "Be kind."}
    assert build("messages").recognise(fields) == "messages='conversations', system='system'"
    assert turns("messages", **fields) == [
        ("system", "Be kind."),
        ("user", "hi"),
        ("assistant", "hello"),
    ]
    assert turns("messages", messages=CHAT, system="Not twice.")[0] == ("system", "")


def test_declared_tools_are_recognised_and_come_first() -> None:
    words = "messages='messages', tools='tools'"
    assert build("messages").recognise({"messages": CHAT, "tools": [{"name": "f"}]}) == words
    empty: tuple[Any, ...] = (None, [], "")
    for value in empty:
        plain = build("messages").recognise({"messages": CHAT, "tools": value})
        assert plain == "messages='messages'"
    some = [{"messages": CHAT}, {"messages": CHAT, "functions": [{"name": "f"}]}]
    _, said = recognise([Row(fields, ORIGIN) for fields in some])
    assert said == f"messages ({words})".replace("'tools'", "'functions'")
    whole = [{"type": "function", "function": {"name": "f"}}]
    for tools in ([{"name": "f"}], whole, '[{"name": "f"}]'):
        first, second, *_ = turns("messages", messages=CHAT, tools=tools)
        assert first == ("tools", json.dumps(whole))
        assert second[0] == "system"


def test_calls_stay_with_their_turn() -> None:
    function = {"name": "f", "arguments": {"a": 1}}
    asked = {"name": "f", "arguments": '{"a": 1}'}
    calls = [{"id": "1", "type": "function", "function": asked}]
    kept = json.dumps([{"id": "1", "type": "function", "function": function}])
    alone = json.dumps([{"type": "function", "function": function}])
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "", "tool_call_id": "1"},
        {"role": "assistant", "content": "Wait.", "tool_calls": calls},
        {"role": "assistant", "content": None, "function_call": asked},
        {"from": "function_call", "value": json.dumps(asked)},
        {"role": "assistant", "content": "Done.", "tool_calls": None, "weight": 1},
    ]
    record = build("messages").read(Row({"messages": messages}, ORIGIN))
    assert isinstance(record, Conversation)
    assert record.turns == (
        Turn("user", "ab"),
        Turn("assistant", "", kept),
        Turn("tool", "", '{"tool_call_id": "1"}'),
        Turn("assistant", "Wait.", kept),
        Turn("assistant", "", alone),
        Turn("assistant", "", alone),
        Turn("assistant", "Done."),
    )


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ({"tool_calls": [{"function": {}}]}, "calls", "tool_calls[0] names no function"),
        ({"tool_calls": 3}, "calls", "are a number, not a list"),
        ({"tool_calls": [{"name": "f", "arguments": "[1]"}]}, "calls", "are a list, not an object"),
        ({"from": "function_call", "value": "call it"}, "calls", "names no function"),
        ({"content": "x", "reasoning_content": 3}, "type", "thinking"),
    ],
)
def test_calls_that_are_none_are_refused(message: dict[str, Any], code: str, said: str) -> None:
    role = {} if "from" in message else {"role": "assistant"}
    found = fault("messages", messages=[*CHAT, {**role, **message}])
    assert (found.code, said in found.message) == (code, True), found.message
    found = fault("messages", messages=CHAT, tools=[{"type": "function"}])
    assert found.message == "tools[0] names no function"
    assert fault("messages", messages=CHAT, tools=3).code == "tools"


def test_what_was_thought_comes_first() -> None:
    talk = [{"role": "user", "content": "a"}]
    for key in ("reasoning_content", "reasoning", "thinking"):
        answer = {"role": "assistant", "content": "b", key: " why "}
        _, said = turns("messages", messages=[*talk, answer])
        assert said == ("assistant", "<think>\nwhy\n</think>\n\nb")


@pytest.mark.parametrize(
    ("messages", "code", "place"),
    [
        (None, "type", "'messages'"),
        ("hi", "type", "'messages'"),
        ([], "no-assistant", "'messages'"),
        (CHAT[:2], "no-assistant", "'messages'"),
        ([*CHAT, "hi"], "message", "messages[3]"),
        ([*CHAT, {"content": "x"}], "message", "messages[3]"),
        ([*CHAT, {"role": "asistant", "content": "x"}], "role", "messages[3]"),
        ([*CHAT, {"role": None, "content": "x"}], "role", "messages[3]"),
        ([*CHAT, {"role": "assistant", "content": " "}], "empty", "messages[3]"),
        ([*CHAT, {"role": "assistant", "content": None}], "null", "messages[3]"),
        ([*CHAT, {"role": "assistant", "content": None, "tool_calls": []}], "null", "messages[3]"),
        ([*CHAT, {"role": "assistant"}], "null", "messages[3]"),
        ([*CHAT, {"role": "user", "content": 3}], "type", "messages[3]"),
        ([*CHAT, {"role": "user", "content": [{"type": "image_url"}]}], "part", "messages[3]"),
        ([*CHAT, {"role": "assistant", "content": "x", "weight": 0}], "weight", "messages[3]"),
    ],
)
def test_messages_faults(messages: Any, code: str, place: str) -> None:
    found = fault("messages", messages=messages)
    assert (found.code, place in found.message) == (code, True)
    assert found.cure


def test_a_misspelt_role_names_the_nearest() -> None:
    messages = [{"role": "asistant", "content": "x"}]
    assert fault("messages", messages=messages).cure == "did you mean 'assistant'?"


@pytest.mark.parametrize("column", ["label", "category", "intent", "class"])
@pytest.mark.parametrize("text", ["text", "sentence", "content", "utterance"])
def test_label(text: str, column: str) -> None:
    fields = {text: "hi", column: "greeting"}
    assert build("label").recognise(fields) == f"text='{text}', label='{column}'"
    assert labelled(**fields) == Labelled(ORIGIN, "hi", "greeting")


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        (3, "3"),
        (0, "0"),
        (True, "True"),
        (0.5, 0.5),
        (2.0, 2.0),
        ("0.5", "0.5"),
        (["a", 2], ("a", "2")),
        ([], ()),
    ],
)
def test_kinds_of_labels(given: Any, read_as: Any) -> None:
    found = labelled(text="a", label=given).label
    assert found == read_as
    assert type(found) is type(read_as)


@pytest.mark.parametrize(
    ("first", "second"),
    [("text", "text_pair"), ("premise", "hypothesis"), ("sentence1", "sentence2")],
)
def test_pairs(first: str, second: str) -> None:
    fields = {first: "a", second: "b", "label": 1}
    said = f"text='{first}', text_pair='{second}', label='label'"
    assert build("label").recognise(fields) == said
    assert labelled(**fields) == Labelled(ORIGIN, "a", "1", "b")
    assert fault("label", **{**fields, second: ""}).code == "empty"


@pytest.mark.parametrize(
    ("label", "code"),
    [
        (None, "null"),
        (float("nan"), "null"),
        (float("inf"), "type"),
        (" ", "empty"),
        ({"a": 1}, "type"),
        (["a", None], "null"),
        (["a", 0.5], "type"),
        ("\ud83d", "encoding"),
    ],
)
def test_label_faults(label: Any, code: str) -> None:
    found = fault("label", text="a", label=label)
    assert found.code == code
    assert "'label'" in found.message


def test_words_name_columns_in_the_way_that_recognition_reads() -> None:
    """``recognise`` finds the columns used by this pattern."""
    fields = {"instruction": "a", "input": "b", "output": "c"}
    words = build("instruction").recognise(fields)
    assert words is not None
    assert set(re.findall(r"='([^']*)'", words)) == set(fields)
    assert Turn("user", "a\n\nb") in getattr(read("instruction", **fields), "turns", ())
