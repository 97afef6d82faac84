"""Codecs over families of templates and tokenizers, and what their answers have to be."""

from __future__ import annotations

from typing import Any

from chat_models import (
    CALLING,
    CHATML,
    GEMMA,
    LLAMA3,
    MISTRAL,
    PLAIN,
    QWEN3,
    QWEN3_MARKED,
    tokenizer,
)
from hypothesis import strategies as st

from luthier.core.codec import Piece
from luthier.core.records import Turn
from luthier.data.template import TokenizerCodec

Q_A = "Q: {prompt}\nA:"
ALPACA = "{system}\n\n### Instruction:\n{prompt}\n\n### Response:\n"

#: name -> (tokenizer family, model's template, recipe's template, end of turn, text before it)
CASES: dict[str, tuple[str, str | None, str | None, str]] = {
    "chatml": ("chatml", CHATML, None, "<|im_end|>"),
    "llama3": ("llama3", LLAMA3, None, "<|eot_id|>"),
    "gemma": ("gemma", GEMMA, None, "<end_of_turn>"),
    "mistral": ("llama3", MISTRAL, None, "<|end_of_text|>"),
    "mistral-legacy": ("legacy", MISTRAL, None, "</s>"),
    "calling": ("chatml", CALLING, None, "<|im_end|>"),
    "qwen3": ("chatml", QWEN3, None, "<|im_end|>"),
    "qwen3-marked": ("chatml", QWEN3_MARKED, None, "<|im_end|>"),
    "plain": ("chatml", PLAIN, None, "<|endoftext|>"),
    "plain-legacy": ("legacy", PLAIN, None, "</s>"),
    "plain-always": ("metaspace-always", PLAIN, None, "</s>"),
    "default": ("chatml", None, None, "<|endoftext|>"),
    "default-bos": ("gemma", None, None, "<eos>"),
    "default-legacy": ("legacy", None, None, "</s>"),
    "default-always": ("metaspace-always", None, None, "</s>"),
    "default-first": ("metaspace-first", None, None, "</s>"),
    "format": ("chatml", None, Q_A, "<|endoftext|>"),
    "format-over-own": ("llama3", LLAMA3, Q_A, "<|end_of_text|>"),
    "format-legacy": ("legacy", None, Q_A, "</s>"),
    "format-first": ("metaspace-first", None, ALPACA, "</s>"),
    "format-system": ("gemma", None, ALPACA, "<eos>"),
    "jinja": ("chatml", None, CHATML, "<|im_end|>"),
}
STRIPPED = {"gemma", "llama3"}
PADDED = {"mistral", "mistral-legacy"}
EXACT = [name for name, case in CASES.items() if not case[0].startswith(("legacy", "metaspace"))]

CHAT = [
    Turn("user", "Hello!"),
    Turn("assistant", "How are you?"),
    Turn("user", "Fine.\nAnd you?"),
    Turn("assistant", "Thank you.\n\nFine."),
]

THINKING = [
    Turn("user", "a"),
    Turn("assistant", "<think>b</think>\n\nc"),
    Turn("user", "d"),
    Turn("assistant", "<think>e</think>\n\nf"),
]
SYSTEM = [Turn("system", "Be brief."), *CHAT]


def codec_of(name: str, **options: Any) -> TokenizerCodec:
    family, own, recipe, _ = CASES[name]
    options = {"max_length": 512, "template": recipe, **options}
    return TokenizerCodec(tokenizer(family, own), **options)


CODECS: dict[str, TokenizerCodec] = {}


def shared(name: str) -> TokenizerCodec:
    return CODECS.setdefault(name, codec_of(name, system="merge"))


def flat(pieces: list[Piece]) -> list[int]:
    return [token for piece in pieces for token in piece.tokens]


def spoken(codec: TokenizerCodec, pieces: list[Piece]) -> list[str]:
    """Answers as text, read in context: sentencepiece decoders strip a text's first space."""
    texts, before = [], list(codec.document("x")[:-1])
    for piece in pieces:
        if piece.answer:
            head = codec.decode(before, special=True)
            texts.append(codec.decode([*before, *piece.tokens], special=True)[len(head) :])
        before += piece.tokens
    return texts


def expected(name: str, text: str) -> str:
    text = text.strip() if name in STRIPPED else text
    text = f" {text} " if name in PADDED else text
    return text + CASES[name][3]


SPECIAL = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<eos>", "<bos>", "</s>"]
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.sampled_from([" ", "\n", "\n\n", "  ", "Hello", " the", "<think>", "\ufdd0", *SPECIAL]),
    ),
    max_size=5,
).map("".join)
