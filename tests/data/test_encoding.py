"""Pieces of text have the tokens that they have in the middle of a text."""

from __future__ import annotations

import pytest
from chat_models import tokenizer
from codec_cases import CHAT, flat, spoken
from tokenizers import AddedToken, normalizers

from luthier.core.records import Turn
from luthier.data.encoding import Encoder, Tally
from luthier.data.template import TokenizerCodec

ROLES = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def roles_codec(rstrip: bool) -> TokenizerCodec:
    made = tokenizer("legacy", ROLES)
    words = [AddedToken(f"<|{role}|>", rstrip=rstrip) for role in ("user", "assistant")]
    made.add_special_tokens({"extra_special_tokens": words})
    return TokenizerCodec(made, max_length=512)


@pytest.mark.parametrize("rstrip", [False, True])
def test_after_a_special_token_as_plain_transformers_has_it(rstrip: bool) -> None:
    """Llama's older tokenizers write a space after a special token, and were trained so."""
    codec = roles_codec(rstrip)
    messages = [{"role": turn.role, "content": turn.content} for turn in CHAT]
    plain = codec.tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert flat(codec.dialogue(CHAT)) == plain


def test_a_token_that_eats_spaces_leaves_the_answers_own() -> None:
    codec = roles_codec(rstrip=True)
    turns = [CHAT[0], Turn("assistant", "\n fox")]
    assert spoken(codec, codec.dialogue(turns)) == ["\n fox</s>"]


@pytest.mark.parametrize("family", ["legacy", "metaspace-always", "metaspace-first"])
@pytest.mark.parametrize("text", ["Hello", " Hello", "  a", "\nfox", ".", "a", "0"])
def test_no_space_that_the_text_does_not_have(family: str, text: str) -> None:
    encoder = Encoder(made := tokenizer(family), Tally())
    last = made.convert_tokens_to_ids("a")
    tokens = made.convert_ids_to_tokens(encoder.encode(text, last))
    spelt = "".join(tokens).replace("▁", " ").replace("<0x0A>", "\n")
    assert spelt == text
    assert not encoder.counts


def test_anchors_that_a_normalizer_drops_are_passed_over() -> None:
    made = tokenizer("metaspace-always")
    made.backend_tokenizer.normalizer = normalizers.Strip()
    encoder = Encoder(made, Tally())
    tokens = made.convert_ids_to_tokens(encoder.encode("Hello", made.convert_tokens_to_ids("a")))
    assert "".join(tokens) == "Hello"


def test_anchors_that_are_unknown_are_passed_over() -> None:
    made = tokenizer("metaspace-always")
    made.backend_tokenizer.normalizer = normalizers.Replace("\n", "ß")
    encoder = Encoder(made, Tally())
    a = made.convert_tokens_to_ids("a")
    assert encoder.encode("éa", a) == [made.unk_token_id, a]
