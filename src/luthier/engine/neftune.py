"""Noise on the embeddings while training (NEFTune: Jain et al. 2023, arXiv 2310.05914).

Each of an example's L tokens of d numbers gets noise drawn evenly from ``[-1, 1]`` times
``alpha / sqrt(L d)``. L counts the example's own tokens, never padding or neighbours. An example's
noise is drawn by its content and the step, so that it depends neither on how the step was cut into
micro-batches nor on what was drawn before. Of an encoder-decoder the encoder reads with noise, and
L counts the source.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from luthier.core.errors import RecipeError
from luthier.core.records import Batch, Example


@contextmanager
def noise(
    alpha: float | None,
    policy: Any,
    batch: Batch,
    examples: Sequence[Example],
    key: tuple[int, ...],
) -> Iterator[None]:
    """While open, the trained model reads this batch with noise; none where alpha is unset.

    Args:
        alpha: its strength.
        policy: the model, as objectives see it.
        batch: what is about to be computed.
        examples: what the batch was made of, in order.
        key: seed and step.
    """
    if alpha is None:
        yield
        return

    read = batch if batch.source is None else batch.source
    stack = policy.trunk if batch.source is None else policy.trunk.get_encoder()
    stream = "main" if batch.source is None else "source"

    def add(module: Any, _given: Any, out: Tensor) -> Tensor:
        # A reference runs in evaluation mode, and an inner model may read something else.
        if not module.training or out.shape[:-1] != read.tokens.shape:
            return out
        drawn = torch.cat([_drawn(each, stream, out.shape[-1], alpha, key) for each in examples])
        placed = torch.zeros(out.shape[:-1].numel(), out.shape[-1], device=out.device)
        index = read.index.to(out.device)[: len(drawn)]
        placed.index_copy_(0, index, drawn.to(out.device))
        return out + placed.view(out.shape).to(out.dtype)

    hook = stack.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def check(alpha: float | None, policy: Any) -> None:
    """Whether the model reads its embeddings at every step.

    Raises:
        RecipeError: its trunk is frozen and was run once.
    """
    if alpha is None:
        return
    if getattr(policy, "trunk", None) is None:
        raise RecipeError(
            "training.neftune_alpha has no effect where the trunk is frozen and run once",
            cure="leave it out, or take method: lora or full",
            code="pairing",
        )


def _drawn(example: Example, stream: str, width: int, alpha: float, key: tuple[int, ...]) -> Tensor:
    """``[L, d]`` of one example's tokens in a stream."""
    content = hashlib.sha256(repr((key, str(example.origin))).encode())
    for segment in example.segments:
        content.update(segment.tokens.tobytes())
    generator = torch.Generator().manual_seed(int.from_bytes(content.digest()[:8], "big") >> 1)
    size = sum(len(segment.tokens) for segment in example.segments if segment.stream == stream)
    scale = alpha / math.sqrt(size * width)
    return (torch.rand(size, width, generator=generator) * 2 - 1) * scale
