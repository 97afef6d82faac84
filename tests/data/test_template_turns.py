"""Templates that rewrite, refuse or swallow turns, and templates of a recipe's own."""

from __future__ import annotations

import pytest
from chat_models import CHATML, QWEN3_MARKED, tokenizer
from codec_cases import (
    CASES,
    CHAT,
    SYSTEM,
    TEXTS,
    THINKING,
    codec_of,
    expected,
    flat,
    shared,
    spoken,
)
from hypothesis import given, settings

from luthier.core.errors import RecipeError, UserError
from luthier.core.records import Turn
from luthier.data.template import TokenizerCodec


def test_a_template_that_rewrites_earlier_turns_is_refused_with_a_cure() -> None:
    with pytest.raises(UserError, match="train_on: last_turn"):
        codec_of("qwen3").dialogue(THINKING)


def test_its_last_turn_can_be_learned() -> None:
    codec = codec_of("qwen3")
    pieces = codec.last_turn(THINKING)
    assert spoken(codec, pieces) == ["<think>e</think>\n\nf<|im_end|>"]
    assert flat(pieces)[: len(codec.prompt(THINKING[:3]))] == codec.prompt(THINKING[:3])
    assert "<think>b" not in codec.decode(flat(pieces), special=True)


def test_generation_markers_serve_where_a_template_rewrites() -> None:
    codec = codec_of("qwen3-marked")
    pieces = codec.dialogue(THINKING)
    assert spoken(codec, pieces) == ["c<|im_end|>", "<think>e</think>\n\nf<|im_end|>"]
    prompt = codec.prompt(THINKING[:3])
    assert flat(pieces)[: len(prompt)] == prompt


@pytest.mark.parametrize("where", ["outside", "before", "after"])
def test_markers_need_not_agree_with_the_prompt(where: str) -> None:
    """The end-of-turn token outside of what is marked; a prompt that ends before or after it."""
    whole = "{% generation %}{{ content + '<|im_end|>' }}{% endgeneration %}"
    assert whole in QWEN3_MARKED
    template = {
        "outside": QWEN3_MARKED.replace(
            whole, "{% generation %}{{ content }}{% endgeneration %}{{ '<|im_end|>' }}"
        ),
        "before": QWEN3_MARKED.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant'"),
        "after": QWEN3_MARKED.replace(
            "{{ '<|im_start|>' + message['role'] + '\\n' }}"
            "{% if message['role'] == 'assistant' %}{% generation %}",
            "{{ '<|im_start|>' + message['role'] }}"
            "{% if message['role'] == 'assistant' %}{% generation %}{{ '\\n' }}",
        ),
    }[where]
    assert template != QWEN3_MARKED
    codec = TokenizerCodec(tokenizer("chatml", template), max_length=512)
    lead = "\n" if where == "before" else ""
    pieces = codec.dialogue(THINKING)
    assert spoken(codec, pieces) == [
        f"{lead}c<|im_end|>",
        f"{lead}<think>e</think>\n\nf<|im_end|>",
    ]
    prompt = codec.prompt(THINKING[:3])
    assert flat(pieces)[: len(prompt)] == prompt
    assert any("between prompt and answer" in line for line in codec.said) == bool(lead)


def test_the_end_of_turn_may_differ_from_turn_to_turn() -> None:
    other = CHATML.replace(
        "'<|im_end|>' + '\\n'",
        "('<|im_end|>\\n' if loop.index0 < 2 else '<|endoftext|>')",
    )
    assert other != CHATML
    codec = TokenizerCodec(tokenizer("chatml", other), max_length=512)
    ends = [text[-8:] for text in spoken(codec, codec.dialogue(CHAT))]
    assert ends == ["<|im_end|>"[-8:], "<|endoftext|>"[-8:]]


@pytest.mark.parametrize("name", ["chatml", "llama3", "default-bos", "qwen3-marked", "plain"])
def test_an_assistant_that_speaks_first(name: str) -> None:
    codec = shared(name)
    pieces = codec.dialogue(CHAT[1:])
    assert spoken(codec, pieces) == [
        expected(name, CHAT[1].content),
        expected(name, CHAT[3].content),
    ]
    assert flat(pieces).count(codec.tokenizer.bos_token_id) <= 1
    prompt = codec.prompt(CHAT[1:3])
    assert flat(pieces)[: len(prompt)] == prompt


@pytest.mark.parametrize("name", CASES)
def test_last_turn_leaves_earlier_answers_and_later_turns_out(name: str) -> None:
    codec = shared(name)
    pieces = codec.last_turn([*CHAT, Turn("user", "Bye.")])
    assert spoken(codec, pieces) == [expected(name, CHAT[3].content)]
    assert flat(pieces) == flat(codec.dialogue(CHAT))


def test_last_turn_without_an_answer_is_an_error() -> None:
    with pytest.raises(UserError, match="no assistant turn"):
        codec_of("chatml").last_turn(CHAT[:1])


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_a_refused_system_turn(name: str) -> None:
    with pytest.raises(UserError, match=r"data\.system: merge"):
        codec_of(name).dialogue(SYSTEM)

    merged = codec_of(name, system="merge")
    first = Turn("user", "Be brief.\n\nHello!")
    assert flat(merged.dialogue(SYSTEM)) == flat(merged.dialogue([first, *CHAT[1:]]))
    assert [piece.turn for piece in merged.dialogue(SYSTEM) if piece.answer] == [2, 4]
    assert merged.counts["system_merged"] == 2
    assert any("merged into the user turn" in line for line in merged.said)

    dropped = codec_of(name, system="drop")
    assert flat(dropped.dialogue(SYSTEM)) == flat(dropped.dialogue(CHAT))
    assert dropped.counts["system_dropped"] == 1


def test_a_template_that_swallows_the_system_turn_refuses_it() -> None:
    silent = CHATML.replace(
        "{% for message in messages %}",
        "{% for message in messages if message['role'] != 'system' %}",
    )
    codec = TokenizerCodec(tokenizer("chatml", silent), max_length=512)
    with pytest.raises(UserError, match="takes no system turn"):
        codec.prompt(SYSTEM[:2])


def test_a_setting_without_effect_is_said() -> None:
    assert any("no effect" in line for line in codec_of("chatml", system="drop").said)


@pytest.mark.parametrize("name", ["gemma", "format", "mistral"])
def test_refused_tool_turns_become_user_turns(name: str) -> None:
    codec = codec_of(name)
    turns = [*CHAT[:2], Turn("tool", "42"), Turn("tool", "43"), Turn("user", "So?")]
    turns.append(CHAT[3])
    told = [*CHAT[:2], Turn("user", "tool: 42\n\ntool: 43\n\nSo?"), CHAT[3]]
    assert flat(codec.dialogue(turns)) == flat(codec.dialogue(told))
    assert [piece.turn for piece in codec.dialogue(turns) if piece.answer] == [1, 5]
    assert codec.counts["tool_as_user"] == 4
    assert any("tool turns" in line for line in codec.said)


def test_tool_turns_stay_where_the_template_takes_them() -> None:
    codec = codec_of("default")
    text = codec.decode(flat(codec.dialogue([*CHAT[:2], Turn("tool", "42"), CHAT[3]])))
    assert "### Tool:\n42" in text
    assert codec.counts["tool_as_user"] == 0


def test_what_the_template_refuses_is_told() -> None:
    with pytest.raises(UserError, match="roles must alternate"):
        codec_of("gemma").prompt([CHAT[0], CHAT[0]])


def test_a_template_without_end_is_bounded() -> None:
    endless = (
        "{% for i in range(90000) %}{{ 'no end ' }}{% endfor %}"
        "{{ raise_exception('all of it was written') }}{{ messages }}"
    )
    with pytest.raises(UserError, match="writes more than"):
        TokenizerCodec(tokenizer("chatml", endless), max_length=512)


def test_a_template_that_is_no_jinja_is_an_error() -> None:
    with pytest.raises(UserError, match="no valid Jinja"):
        codec_of("chatml", template="{% for m in messages %}")


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("no fields", "no {prompt}"),
        ("{prompt} {name}", "'{name}' is none"),
        ("{prompt", "expected '}'"),
        ("{prompt!r}", "is none"),
        ("{{prompt}}", "no {prompt}"),
        ("{% if x %}{prompt}", "never reads 'messages'"),
    ],
)
def test_a_wrong_prompt_format_is_refused(form: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why.replace("{", r"\{")):
        codec_of("chatml", template=form)


@settings(max_examples=60, deadline=None)
@given(before=TEXTS, between=TEXTS, after=TEXTS)
def test_a_prompt_format_is_taken_literally(before: str, between: str, after: str) -> None:
    def escaped(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}").replace("messages", "")

    form = f"{escaped(before)}{{system}}{escaped(between)}{{prompt}}{escaped(after)}"
    if "{%" in form:
        return
    codec = codec_of("chatml", template=form)
    text = codec.tokenizer.apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}], tokenize=False
    )
    assert text == form.format(system="S", prompt="U")


def test_a_prompt_format_over_several_turns() -> None:
    codec = codec_of("format")
    text = codec.decode(flat(codec.dialogue(SYSTEM)), special=True)
    assert text == (
        "Be brief.\n\nQ: Hello!\nA:How are you?<|endoftext|>"
        "\nQ: Fine.\nAnd you?\nA:Thank you.\n\nFine.<|endoftext|>"
    )


def test_the_default_template() -> None:
    codec = codec_of("default-bos")
    assert codec.said[0].startswith("the model has no chat template")
    assert codec.decode(flat(codec.dialogue(SYSTEM[:3])), special=True) == (
        "<bos>### System:\nBe brief.\n\n### User:\nHello!\n\n### Assistant:\nHow are you?<eos>"
    )


def test_a_template_without_end_of_turn_says_so() -> None:
    assert any("no end-of-turn token" in line for line in codec_of("plain").said)
