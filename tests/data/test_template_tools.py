"""Tools, calls and thinking through the one path from turns to tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_models import CALLING, QWEN3_MARKED, tokenizer
from codec_cases import CHAT, THINKING, codec_of, flat, spoken

from luthier.core import kinds
from luthier.core.errors import DataError, UserError
from luthier.core.records import Conversation, Origin, Row, Turn
from luthier.data.template import TokenizerCodec
from luthier.data.writing import _messages
from luthier.evaluation.questions import questions
from luthier.objectives import sft

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Rouen"}}}
TOOLS = Turn("tools", json.dumps([TOOL]))
CALLS = json.dumps([CALL])
TALK = [
    TOOLS,
    Turn("user", "Rain?"),
    Turn("assistant", "Wait.", CALLS),
    Turn("tool", "dry"),
    Turn("assistant", "No."),
]
WRITTEN = '<call>weather {"town": "Rouen"}</call>'


def test_law_7_calls_are_learned_as_the_template_writes_them() -> None:
    codec = codec_of("calling")
    pieces = codec.dialogue(TALK)
    text = codec.decode(flat(pieces), special=True)
    assert text.startswith(f"<|im_start|>system\nTools:\n{json.dumps(TOOL)}\n<|im_end|>\n")
    assert spoken(codec, pieces) == [f"Wait.\n{WRITTEN}<|im_end|>", "No.<|im_end|>"]
    assert [piece.turn for piece in pieces if piece.answer] == [2, 4]
    prompt = codec.prompt(TALK[:2])
    assert flat(pieces)[: len(prompt)] == prompt
    assert flat(codec.last_turn(TALK[:3])) == flat(codec.dialogue(TALK[:3]))
    assert not codec.counts["tools_unseen"] + codec.counts["calls_as_text"]


def test_a_system_turn_follows_the_tools() -> None:
    codec = codec_of("calling")
    text = codec.decode(flat(codec.dialogue([TOOLS, Turn("system", "Brief."), *TALK[1:]])))
    assert text.index("weather") < text.index("Brief.") < text.index("Rain?")


@pytest.mark.parametrize("name", ["chatml", "default", "gemma"])
def test_law_9_where_the_template_knows_no_tools_it_is_counted(name: str) -> None:
    codec = codec_of(name)
    turns = [*TALK[:3], Turn("user", "So?"), TALK[4]]
    told = [turns[1], Turn("assistant", f"Wait.\n{CALLS}"), *turns[3:]]
    assert flat(codec.dialogue(turns)) == flat(codec.dialogue(told))
    assert (codec.counts["tools_unseen"], codec.counts["calls_as_text"]) == (1, 1)


def test_special_tokens_spelt_in_a_call_stay_text() -> None:
    codec = codec_of("calling")
    evil = json.dumps(
        [{"type": "function", "function": {"name": "f", "arguments": {"a": "<|im_end|>"}}}]
    )
    pieces = codec.dialogue([Turn("user", "a"), Turn("assistant", "", evil)])
    end = codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert flat(pieces).count(end) == 2
    assert codec.decode(flat(pieces), special=True).count("<|im_end|>") == 3


def test_a_template_without_an_end_of_turn_gets_the_tokenizers() -> None:
    open_ended = CALLING.replace("<|im_end|>", "").replace("<|im_start|>", "# ")
    codec = TokenizerCodec(tokenizer("chatml", open_ended), max_length=512)
    assert spoken(codec, codec.dialogue(TALK[:3])) == [f"Wait.\n{WRITTEN}<|endoftext|>"]


def test_a_question_is_answered_by_a_call() -> None:
    codec = codec_of("calling")
    [asked] = questions([Conversation(Origin("made", 1), tuple(TALK[:3]))], [], codec, 1)
    assert asked.references == (f"Wait.\n{WRITTEN}",)
    assert asked.tokens == codec.prompt(TALK[:2])
    assert asked.text == "user: Rain?"


def test_a_turn_of_calls_alone_teaches_something() -> None:
    made = sft.Objective(sft.Config())
    turns = (Turn("user", "a"), Turn("assistant", "", CALLS))
    example = made.encode(Conversation(Origin("made", 1), turns), codec_of("calling"))
    assert len(example.targets["lm"]["token"]) > 5
    with pytest.raises(DataError, match="is empty"):
        made.encode(
            Conversation(Origin("made", 1), (turns[0], Turn("assistant", ""))), codec_of("calling")
        )


def test_thinking_is_kept_masked_or_dropped() -> None:
    turns = THINKING[2:]
    kept, masked, dropped = (codec_of("chatml", thinking=how) for how in ("keep", "mask", "drop"))
    assert spoken(kept, kept.dialogue(turns)) == ["<think>e</think>\n\nf<|im_end|>"]
    assert spoken(masked, masked.dialogue(turns)) == ["f<|im_end|>"]
    assert masked.decode(flat(masked.dialogue(turns))) == kept.decode(flat(kept.dialogue(turns)))
    assert spoken(dropped, dropped.dialogue(turns)) == ["f<|im_end|>"]
    assert "<think>" not in dropped.decode(flat(dropped.dialogue(turns)))
    assert masked.counts["thinking_masked"] == 2
    assert dropped.counts["thinking_dropped"] == 2
    assert len({codec.fingerprint() for codec in (kept, masked, dropped)}) == 3


def test_thinking_that_the_prompt_opens_is_masked_as_well() -> None:
    prompt = "assistant\\n' }}{% endif %}"
    opening = QWEN3_MARKED.replace(prompt, prompt.replace("\\n", "\\n<think>"))
    assert opening != QWEN3_MARKED
    codec = TokenizerCodec(tokenizer("chatml", opening), max_length=512, thinking="mask")
    pieces = codec.last_turn([Turn("user", "d"), Turn("assistant", "<think>e</think>\n\nf")])
    assert spoken(codec, pieces) == ["f<|im_end|>"]


def test_a_user_who_writes_of_thinking_loses_nothing() -> None:
    dropped: Any = codec_of("chatml", thinking="drop")
    turns = [Turn("user", "<think>mine</think> hi"), CHAT[1]]
    assert "<think>mine</think> hi" in dropped.decode(flat(dropped.dialogue(turns)))


def test_an_answer_that_is_nothing_but_thinking_is_refused() -> None:
    with pytest.raises(UserError, match="nothing but thinking"):
        codec_of("chatml", thinking="drop").dialogue(
            [CHAT[0], Turn("assistant", "<think>e</think>")]
        )


NAMED = """{%- for m in messages -%}
<|im_start|>{{ m.role }}{{ (' ' ~ m.name ~ '#' ~ m.tool_call_id) if m.role == 'tool' else '' }}
{{ m.content }}{{ m.tool_calls[0].function.name if m.tool_calls else '' }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""


def test_a_tools_answer_says_which_call_it_answers() -> None:
    fields = {
        "messages": [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "c1"}]},
            {"role": "tool", "name": "weather", "tool_call_id": "c1", "content": "dry"},
            {"role": "assistant", "content": "No."},
        ]
    }
    chosen = kinds.config("data/formats", "messages")
    record = kinds.build("data/formats", chosen).read(Row(fields, Origin("a.jsonl", 1)))
    codec = TokenizerCodec(tokenizer("chatml", NAMED), max_length=400)
    text = codec.decode(flat(codec.dialogue(record.turns)), special=True)
    assert "<|im_start|>tool weather#c1\ndry<|im_end|>" in text
    written = _messages(record.turns)
    assert written[2] == fields["messages"][2]
