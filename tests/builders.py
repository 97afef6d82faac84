"""Small models, tokenizers, examples and data, built in code: what the law tests share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from luthier.core import kinds
from luthier.core.records import Conversation, Example, Origin, Segment, Turn, causal_example
from luthier.data.template import TokenizerCodec
from luthier.models.tokenizer import train_tokenizer

VOCABULARY = 101

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_SLIDING = {"head_dim": 8, "sliding_window": 5}

#: Decoder architectures and what they need beside the common settings. Windows are smaller than
#: the sequences, so that they count.
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {**_SLIDING},
    "phi": {"num_key_value_heads": 4, "resid_pdrop": 0.0},
    "gpt_neox": {},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gemma": {"head_dim": 8},
    "gemma2": {**_SLIDING, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 3.0},
    "gemma3_text": {
        **_SLIDING,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}

ORIGIN = Origin("made.jsonl", 1)

SENTENCES = (
    "the cat sat on the mat and looked at the rain",
    "where is my order? it left the shop two days ago",
    "a small boat crossed the river before the night came",
    "we open at nine and close at six, except on sundays",
    "please write your name here, then press the green button",
    "once upon a time there was a fox who could count to ten",
)


def tiny(architecture: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A transformers model of two layers with seeded weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**_COMMON, **DECODERS[architecture], **changes}
    if architecture in ("gpt2", "gpt_neox"):
        settings.pop("num_key_value_heads")
    if architecture == "gpt2":
        settings["n_inner"] = settings.pop("intermediate_size")
    config = AutoConfig.for_model(architecture, **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():  # weights large enough for attention to be far from uniform
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return model.train()


def tokens(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Random token ids that are no special tokens."""
    return np.random.default_rng(seed).integers(5, VOCABULARY, count)


def document(length: int, seed: int = 0, line: int = 1) -> Example:
    """One segment, every token learned."""
    return causal_example([(tokens(length, seed).tolist(), True)], Origin("made.jsonl", line))


def answered(prompt: int, answer: int, seed: int = 0, line: int = 1) -> Example:
    """One segment whose second part is learned."""
    ids = tokens(prompt + answer, seed).tolist()
    return causal_example([(ids[:prompt], False), (ids[prompt:], True)], Origin("made.jsonl", line))


def examples(lengths: Sequence[int], seed: int = 0) -> list[Example]:
    """Documents of these lengths."""
    return [document(n, seed * 1000 + i, line=i + 1) for i, n in enumerate(lengths)]


def tree(
    lengths: Sequence[int] = (7, 4, 6, 3),
    parents: Sequence[int | None] = (None, 0, 0, 2),
    seed: int = 0,
) -> Example:
    """A tree of segments in which every token but the root's first is a target of its own weight.

    The default is a prompt, two answers, and a follow-up to the second.
    """
    rng = np.random.default_rng(seed)
    runs = [rng.integers(5, VOCABULARY, n) for n in lengths]
    starts = np.cumsum([0, *lengths[:-1]])
    position: list[int] = []
    token: list[int] = []
    for run, start, parent in zip(runs, starts, parents, strict=True):
        if parent is not None:
            position.append(int(starts[parent] + lengths[parent] - 1))
            token.append(int(run[0]))
        position.extend(int(start + i) for i in range(len(run) - 1))
        token.extend(int(t) for t in run[1:])
    weight = rng.uniform(0.2, 2.0, len(token)).astype(np.float32)
    table = {
        "position": np.array(position, dtype=np.int64),
        "token": np.array(token, dtype=np.int64),
        "weight": weight,
    }
    segments = tuple(Segment(run, parent) for run, parent in zip(runs, parents, strict=True))
    return Example(segments, {"lm": table}, ORIGIN)


def leaves(example: Example) -> list[list[int]]:
    """Root-to-leaf paths as lists of segment indices."""
    inner = {s.parent for s in example.segments}
    return [example.ancestors(i) for i in range(len(example.segments)) if i not in inner]


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> gradient of every parameter that has one."""
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def gap(a: Any, b: Any) -> float:
    """Largest absolute difference of two tensors or of two mappings of tensors."""
    if isinstance(a, torch.Tensor):
        return float((a.detach().double() - b.detach().double()).abs().max())
    assert set(a) == set(b)
    return max(gap(a[name], b[name]) for name in a)


@cache
def _tokenizer_json() -> Any:
    return train_tokenizer(SENTENCES * 3, 360)


def tokenizer() -> Any:
    """A byte-level tokenizer with the built-in chat template; each caller gets its own."""
    import copy

    return copy.deepcopy(_tokenizer_json())


def codec(max_length: int = 128, **settings: Any) -> TokenizerCodec:
    """The codec around :func:`tokenizer`."""
    return TokenizerCodec(tokenizer(), max_length=max_length, **settings)


def settings(folder: str, kind: str) -> dict[str, Any]:
    """A kind with what it cannot do without: a field's example, or else the name of a model."""
    fields = kinds.module(folder, kind).Config.model_fields
    needed = {name: field for name, field in fields.items() if field.is_required()}
    found = {
        n: field.examples[0] if field.examples else "builtin:nano" for n, field in needed.items()
    }
    return {"kind": kind, **found}


def conversations(count: int = 6, turns: int = 1) -> list[Conversation]:
    """Questions with answers; with more turns, several of them in a row."""
    made = []
    for number in range(count):
        said: list[Turn] = []
        for turn in range(turns):
            at = number + turn
            said.append(Turn("user", f"tell me of number {at}"))
            said.append(Turn("assistant", SENTENCES[at % len(SENTENCES)]))
        made.append(Conversation(Origin("made.jsonl", number + 1), tuple(said)))
    return made


def talking(tokens_known: int, **changes: Any) -> Any:
    """A tiny Llama for the vocabulary of :func:`tokenizer`, with ordinary small weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        **_COMMON,
        "vocab_size": tokens_known,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        **changes,
    }
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **settings), dtype=torch.float32
    )
