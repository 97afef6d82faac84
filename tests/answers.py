"""Rows whose answers are compared, and what plain slow code makes of their tokens."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import torch
from torch import Tensor, nn

from luthier.core import kinds
from luthier.core.records import Example, Origin, Preference, Ranking, Thumb, Turn
from luthier.models.language_model import CausalModel

SAID = builders.SENTENCES


def origin(line: int) -> Origin:
    """Where a made row stands."""
    return Origin("made.jsonl", line)


def said(text: str) -> tuple[Turn, ...]:
    """An answer."""
    return (Turn("assistant", text),)


def asked(number: int) -> tuple[Turn, ...]:
    """A prompt of one turn, or of several."""
    question = Turn("user", f"tell me of number {number}")
    if number % 2:
        return (question,)
    return (Turn("user", "hello"), Turn("assistant", SAID[number % 6][:20]), question)


def pairs(count: int = 5, margins: bool = False) -> list[Preference]:
    """Answers of different lengths, the chosen one now longer, now shorter."""
    return [
        Preference(
            origin(i + 1),
            asked(i),
            said(SAID[i % 6][: 30 - 3 * i]),
            said(SAID[(i + 2) % 6][: 12 + 4 * i]),
            0.25 * i if margins and i else None,
        )
        for i in range(count)
    ]


def rankings(count: int = 3) -> list[Ranking]:
    """Two to four answers to a prompt."""
    return [
        Ranking(
            origin(100 + i),
            asked(i),
            tuple(said(SAID[(i + k) % 6][: 10 + 3 * k]) for k in range(2 + i)),
        )
        for i in range(count)
    ]


def thumbs(count: int = 6) -> list[Thumb]:
    """Liked ones and others."""
    return [
        Thumb(origin(200 + i), asked(i), said(SAID[i % 6][: 8 + 5 * i]), i % 3 != 0)
        for i in range(count)
    ]


def objective(kind: str, **settings: Any) -> Any:
    """One by its settings."""
    return kinds.build("objectives", kinds.config("objectives", {"kind": kind, **settings}))


def speaker(**changes: Any) -> Any:
    """A small GPT-2 in float64, without chance: Llama's norms compute in float32."""
    sizes: dict[str, Any] = {
        "vocab_size": len(builders.tokenizer()),
        "max_position_embeddings": 128,
        **changes,
    }
    return builders.tiny("gpt2", torch.float64, **sizes)


def plain_logprobs(module: nn.Module, example: Example) -> list[Tensor]:
    """Each answer's log-probabilities token by token, from whole sequences, one at a time."""
    model = CausalModel(module)
    model.base.set_attn_implementation("sdpa")
    prompt, found = example.segments[0].tokens, []
    for segment in example.segments[1:]:
        ids = torch.tensor(np.concatenate([prompt, segment.tokens]))[None]
        logits = module(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        picked = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])
        found.append(picked[:, 0])
    return found
