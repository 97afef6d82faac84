"""Pairs in tokens, as plain transformers tokenises them; only the text of a source is cut."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pairs
import pytest
import torch

from luthier.core.errors import DataError, RecipeError, UserError
from luthier.core.records import Example, Turn
from luthier.data.length import Cut
from luthier.data.length_pairs import fit_pair, source_frame

SAID = "the small boat sailed out on the river at noon"


def test_a_source_and_a_target_are_transformers_own_tokens() -> None:
    codec, plain = pairs.codec(), pairs.tokenizer()
    found = codec.streams(SAID, "uno dos")
    assert list(found.read) == plain(SAID).input_ids
    assert list(found.written) == plain(text_target="uno dos").input_ids
    assert found.written[-1] == plain.eos_token_id
    assert found.fed == (plain.pad_token_id, *found.written[:-1])
    assert codec.end_tokens == [plain.eos_token_id]
    assert codec.decoder_prompt == [plain.pad_token_id]
    assert codec.tokenizer.chat_template is None


def test_a_template_stands_around_every_source() -> None:
    codec, plain = pairs.codec(template="say: {source} !"), pairs.tokenizer()
    assert list(codec.streams("a b", "c").read) == plain("say: a b !").input_ids
    assert codec.prompt((Turn("user", "a b"),)) == plain("say: a b !").input_ids
    assert codec.document("a b") == plain("a b").input_ids
    before, after = source_frame(codec)
    assert codec.decode(codec.prompt((Turn("user", "x"),))[:before]) == "say: "
    assert codec.decode(codec.prompt((Turn("user", "x"),))[-after:]) == " !"
    assert pairs.codec(template="a {{b}} {prompt}").prompt((Turn("user", "x"),)) == (
        plain("a {b} x").input_ids
    )


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("summarize:", "it must have {source} once"),
        ("{source} {source}", "it must have {source} once"),
        ("{article}", "'{article}' is not {source}"),
        ("{source", "expected '}'"),
    ],
)
def test_a_template_without_its_source_is_refused(template: str, why: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(why)):
        pairs.codec(template=template)


def test_text_that_spells_a_special_token_stays_text() -> None:
    codec = pairs.codec()
    end = codec.tokenizer.eos_token_id
    found = codec.streams("a <|endoftext|> b", "c <|endoftext|>")
    assert found.read.count(end) == 1
    assert found.written.count(end) == 1
    assert codec.counts["special_text"] == 2
    assert codec.decode(found.read) == "a <|endoftext|> b"


def test_a_target_that_begins_with_its_last_token() -> None:
    """mBART's first checkpoints: the language ends the target and starts the decoder."""
    made = pairs.tokenizer()
    codec = pairs.PairCodec(made, start=None, max_length=64)
    found = codec.streams("a", "b c")
    assert found.fed == (found.written[-1], *found.written[:-1])
    assert codec.decoder_prompt == [found.written[-1]]


def test_what_an_encoder_decoder_has_no_place_for() -> None:
    codec = pairs.codec()
    with pytest.raises(UserError, match="no place for a system turn"):
        codec.prompt((Turn("system", "be brief"), Turn("user", "hi")))
    with pytest.raises(UserError, match="not from conversations"):
        codec.dialogue((Turn("user", "hi"), Turn("assistant", "ho")))
    with pytest.raises(UserError, match="without a user turn"):
        codec.prompt(())
    with pytest.raises(RecipeError, match="knows no languages"):
        pairs.codec(languages=("en_XX", "es_XX"))


def test_the_fingerprint_tells_templates_and_starts_apart() -> None:
    made = pairs.tokenizer()
    prints = {
        pairs.codec().fingerprint(),
        pairs.codec(template="say: {source}").fingerprint(),
        pairs.PairCodec(made, start=None, max_length=128).fingerprint(),
        pairs.PairCodec(made, start=5, max_length=128).fingerprint(),
    }
    assert len(prints) == 4
    assert pairs.codec().fingerprint() == pairs.codec().fingerprint()


def made(template: str | None = None, *, chain: bool = False) -> tuple[Example, tuple[int, int]]:
    import builders

    from luthier.core import kinds

    objective = kinds.build("objectives", kinds.config("objectives", "seq2seq"))
    codec = builders.codec(template=template) if chain else pairs.codec(template=template)
    [record] = pairs.records(1)
    return objective.encode(record, codec), source_frame(codec)


@pytest.mark.parametrize("policy", ["left", "right"])
@pytest.mark.parametrize("chain", [False, True])
def test_only_the_sources_text_is_cut(policy: str, *, chain: bool) -> None:
    example, (before, after) = made("say: {source}!\n", chain=chain)
    source, target = (segment.tokens for segment in example.segments)
    limit = len(source) - 4 + (len(target) if chain else 0)
    [found], cut = fit_pair(example, limit, policy, frame=(before, after))
    assert cut == Cut(examples=1, tokens=4)
    short = found.segments[0].tokens
    assert before > 2
    assert short[:before].tolist() == source[:before].tolist()
    assert short[-after:].tolist() == source[-after:].tolist()
    text = source[before : len(source) - after]
    kept = text[4:] if policy == "left" else text[:-4]
    assert short[before : len(short) - after].tolist() == kept.tolist()
    assert found.segments[1].tokens.tolist() == target.tolist()
    table, old = found.targets["lm"], example.targets["lm"]
    assert table["token"].tolist() == old["token"].tolist()
    assert (table["position"] == old["position"] - 4).all()


def test_a_long_target_loses_its_end_and_its_end_token() -> None:
    example, frame = made()
    size = len(example.segments[1].tokens)
    [found], cut = fit_pair(example, 512, "right", (None, size - 2), frame)
    assert len(found.segments[1].tokens) == size - 2
    written = found.targets["lm"]["token"]
    assert written.tolist() == example.targets["lm"]["token"][: size - 3].tolist()
    assert cut == Cut(examples=1, tokens=2, targets=3)
    assert found.segments[0].tokens.tolist() == example.segments[0].tokens.tolist()


def test_bounds_hold_each_side_by_itself() -> None:
    example, frame = made()
    read, written = (len(segment.tokens) for segment in example.segments)
    assert fit_pair(example, max(read, written), "refuse", (None, None), frame)[1] == Cut()
    assert fit_pair(example, 512, "refuse", (read, written), frame)[1] == Cut()
    with pytest.raises(DataError, match=rf"a source of {read} tokens where {read - 1} fit\n"):
        fit_pair(example, 512, "refuse", (read - 1, None), frame)
    with pytest.raises(DataError, match=rf"source of {read} .* and a target of {written} tokens"):
        fit_pair(example, 512, "window", (read - 1, written - 1), frame)
    assert fit_pair(example, 512, "drop", (read - 1, None), frame)[0] == []


def test_a_source_without_room_for_a_word_is_dropped() -> None:
    example, frame = made("say: {source}!")
    found, cut = fit_pair(example, 512, "right", (sum(frame), None), frame)
    assert found == []
    assert cut == Cut(dropped=1, tokens=example.size, targets=len(example.segments[1].tokens))


def test_a_decoders_source_and_target_share_the_context() -> None:
    example, frame = made(chain=True)
    read, written = (len(segment.tokens) for segment in example.segments)
    assert fit_pair(example, read + written, "refuse", frame=frame)[1] == Cut()
    with pytest.raises(DataError, match="a source of"):
        fit_pair(example, read + written - 1, "refuse", frame=frame)
    assert np.array_equal(example.segments[1].tokens, example.targets["lm"]["token"])


def tongues(kind: str) -> Any:
    """A tokenizer of several languages with a handful of words."""
    import transformers

    special = [(word, 0.0) for word in ("<s>", "<pad>", "</s>", "<unk>")]
    words = [(f"▁{letter}", -2.0) for letter in "abcdex0"]
    letters = [(letter, -3.0) for letter in "abcdexyz.0"]
    return getattr(transformers, kind)(vocab=[*special, *words, *letters, ("▁", -4.0)])


@pytest.mark.parametrize("kind", ["MBart50Tokenizer", "MBartTokenizer"])
def test_languages_stand_where_the_tokenizer_writes_them(kind: str) -> None:
    """mBART-50 before a text, mBART behind it; the decoder is fed as transformers shifts labels."""
    from transformers.models.mbart.modeling_mbart import shift_tokens_right

    plain = tongues(kind)
    plain.src_lang, plain.tgt_lang = "en_XX", "es_XX"
    codec = pairs.PairCodec(tongues(kind), start=None, languages=("en_XX", "es_XX"), max_length=64)
    found = codec.streams("a b", "c d")
    assert list(found.read) == plain("a b").input_ids
    assert list(found.written) == plain(text_target="c d").input_ids
    shifted = shift_tokens_right(torch.tensor([found.written]), plain.pad_token_id)
    assert list(found.fed) == shifted[0].tolist()
    spanish = plain.convert_tokens_to_ids("es_XX")
    assert spanish in codec.decoder_prompt
    assert list(found.fed[: len(codec.decoder_prompt)]) == codec.decoder_prompt
    other = pairs.PairCodec(tongues(kind), start=None, languages=("fr_XX", None), max_length=64)
    assert other.streams("a", "b").read != codec.streams("a", "b").read
    assert other.fingerprint() != codec.fingerprint()
    with pytest.raises(RecipeError, match="has no language 'Spanish'"):
        pairs.PairCodec(tongues(kind), start=None, languages=(None, "Spanish"), max_length=64)
