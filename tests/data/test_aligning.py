"""Words and their tokens: every tokenizer family, words that vanish, special tokens spelled."""

from __future__ import annotations

import encoders
import numpy as np
import pytest
from encoders import FAMILIES, WORDS

from luthier.core.codec import joined


def letters(text: str) -> str:
    """What stays of a text whatever a tokenizer does to case, accents and spaces."""
    import unicodedata

    plain = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in plain if not c.isspace() and not unicodedata.combining(c))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_words_tokens_spell_the_word(family: str) -> None:
    codec = encoders.codec(family)
    text, places = joined(WORDS)
    aligned = codec.aligned(text, places)
    owner, tokens = aligned.owner, aligned.segment.tokens
    assert tokens.tolist() == codec.texts(text)[0]
    assert (np.diff(owner[owner >= 0]) >= 0).all()
    unknown = codec.tokenizer.unk_token_id
    several = 0
    for index, word in enumerate(WORDS):
        mine = tokens[owner == index]
        several += len(mine) > 1
        if unknown in mine:
            continue
        assert letters(codec.decode(mine.tolist())) == letters(word), word
    assert several >= 3
    assert (owner[: aligned.start] == -1).all()
    assert (owner[aligned.stop :] == -1).all()
    assert aligned.stop - aligned.start == len(tokens) - 2


def test_byte_level_tokens_that_divide_a_letter_are_all_of_its_word() -> None:
    codec = encoders.codec("byte_level")
    words = ("a", "😻", "b")
    owner = codec.aligned(*joined(words)).owner
    assert (owner == 1).sum() >= 4
    assert owner[owner >= 0].tolist() == sorted(owner[owner >= 0].tolist())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_that_leaves_no_token_is_not_there_and_counted(family: str) -> None:
    codec = encoders.codec(family)
    words = ("cat", "\u200b", "sat")
    places = joined(words)
    owner = codec.aligned(*places).owner
    seen = set(owner.tolist()) - {-1}
    if family == "byte_level":  # which throws nothing away
        assert seen == {0, 1, 2}
        assert codec.counts["words_unseen"] == 0
    else:
        assert seen == {0, 2}
        assert codec.counts["words_unseen"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_words_that_spell_a_special_token_stay_text(family: str) -> None:
    codec = encoders.codec(family)
    mask = codec.tokenizer.mask_token
    text, places = joined(("the", mask, "sat", "on"))
    aligned = codec.aligned(text, places)
    assert codec.tokenizer.mask_token_id not in aligned.segment.tokens
    assert set(aligned.owner.tolist()) == {-1, 0, 1, 2, 3}
    assert codec.counts["special_text"] == 1
    plain = codec.aligned(*joined(("the", "mat", "sat", "on")))
    for index in (2, 3):  # what stands beside it is what it would be without
        ours = aligned.segment.tokens[aligned.owner == index].tolist()
        assert ours == plain.segment.tokens[plain.owner == index].tolist()


def test_words_of_a_plain_text_are_found() -> None:
    codec = encoders.codec()
    aligned = codec.aligned("She didn't go.")
    assert max(aligned.owner) == 5  # She didn ' t go .


def test_plain_tokens_are_those_that_a_text_can_have() -> None:
    codec = encoders.codec()
    assert codec.mask_token == codec.tokenizer.mask_token_id
    assert not set(codec.plain_tokens.tolist()) & set(codec.tokenizer.all_special_ids)
    assert len(codec.plain_tokens) == len(codec.tokenizer) - 5
