"""Texts put into tokens together are what they are one by one, counts and refusals included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from codec_cases import CASES, CHAT, SYSTEM, THINKING, codec_of

from luthier.core.errors import UserError
from luthier.core.records import Turn
from luthier.data.template import TokenizerCodec

#: Each twice: plain ones, special tokens' text, thinking, a system turn that templates may refuse.
DIALOGUES = [
    tuple(turns)
    for turns in (
        CHAT,
        SYSTEM,
        CHAT,
        THINKING,
        [Turn("user", "say <|im_end|></s><eos>"), Turn("assistant", "<|im_end|></s><eos>")],
        [Turn("assistant", "I speak first"), Turn("assistant", "and second")],
        [Turn("user", ""), Turn("assistant", "")],
        [Turn("user", "a"), Turn("tool", "b"), Turn("system", "c"), Turn("assistant", "d")],
    )
] * 2
TEXTS = ["one text", "one text", "a </s> in <eos> it <|im_end|>", "", "two texts"]


def told(asked: Sequence[Any], ask: Callable[[Any], Any]) -> list[Any]:
    """What each one gives, or the words with which it is refused."""
    found = []
    for each in asked:
        try:
            found.append(ask(each))
        except UserError as error:
            found.append(str(error))
    return found


def both(codec: TokenizerCodec, ahead: bool) -> tuple[list[Any], Counter[str]]:
    """Everything in order, and what was counted."""
    before = Counter(codec.counts)
    if ahead:
        codec.ahead(DIALOGUES, TEXTS)
    found = told(DIALOGUES, codec.dialogue) + told(TEXTS, codec.document)
    return found + told(TEXTS, codec.texts), Counter(codec.counts) - before


@pytest.mark.parametrize("thinking", ["keep", "mask", "drop"])
@pytest.mark.parametrize("name", CASES)
def test_together_is_one_by_one(name: str, thinking: Any) -> None:
    together, one_by_one = (codec_of(name, thinking=thinking) for _ in range(2))
    assert both(together, ahead=True) == both(one_by_one, ahead=False)


def test_the_tokenizer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_of("chatml")
    asked: list[int] = []
    plain = codec._encoder._fast

    def counted(texts: list[str]) -> dict[str, list[int]]:
        asked.append(len(texts))
        return plain(texts)

    monkeypatch.setattr(codec._encoder, "_fast", counted)
    codec.ahead([CHAT, SYSTEM], ["one text"])
    codec.dialogue(CHAT), codec.dialogue(SYSTEM), codec.document("one text")
    assert len(asked) == 1
    codec.ahead()
    codec.document("one text")
    assert asked[1:] == [1], "what was asked for before is forgotten"
