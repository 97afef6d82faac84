"""Log-probabilities of chosen tokens, in chunks; large ones are never held all at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from luthier.ops.cross_entropy import CHUNK_BYTES, chunk_rows

#: Bytes of logits up to which the backward pass finds them instead of making them again.
KEPT_BYTES = 4 * CHUNK_BYTES


def token_logprobs(
    head: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """``log softmax(head(h))[label]`` of each row, and whether the label is the most likely.

    Args:
        head: ``[r, H] -> [r, V]`` logits.
        hidden: ``[R, H]``.
        labels: ``[R]`` token ids.
        vocabulary: ``V``, which sets the size of a chunk.

    Returns:
        Log-probabilities ``[R]`` in nats, differentiable (logits of more than
        :data:`KEPT_BYTES` are recomputed in the backward pass), and ``[R]`` booleans.
    """

    def chunk(h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(h)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        picked = logits.gather(1, y[:, None])[:, 0]
        return picked - logits.logsumexp(-1), logits.detach().argmax(-1) == y

    rows = chunk_rows(vocabulary)
    large = 4 * len(hidden) * vocabulary > KEPT_BYTES
    parts = []
    # Without rows the head runs all the same: DDP waits for the gradient of every parameter.
    for at in range(0, max(1, len(hidden)), rows):
        h, y = hidden[at : at + rows], labels[at : at + rows]
        if large and torch.is_grad_enabled() and hidden.requires_grad:
            parts.append(checkpoint(chunk, h, y, use_reentrant=False))
        else:
            parts.append(chunk(h, y))
    return torch.cat([p for p, _ in parts]), torch.cat([c for _, c in parts])


def sampled_statistics(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    labels: Tensor,
    vocabulary: int,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """What a policy says of the tokens it sampled: their log-probabilities, and its entropy.

    Args:
        head: ``[r, H] -> [r, V]`` logits.
        hidden: ``[R, H]``.
        labels: ``[R]`` token ids.
        vocabulary: ``V``, which sets the size of a chunk.
        temperature: logits are divided by it, as they were when the tokens were drawn.

    Returns:
        ``[R]`` and ``[R]`` in nats, both differentiable (logits are recomputed in the backward
        pass).
    """

    def chunk(h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(h)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if temperature != 1.0:
            logits = logits / temperature
        logprobs = logits.log_softmax(-1)
        # Forbidden tokens (-inf) add nothing.
        entropy = -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(-1)
        return logprobs.gather(1, y[:, None])[:, 0], entropy

    rows = chunk_rows(vocabulary)
    parts = []
    # Without rows the head runs all the same: DDP waits for the gradient of every parameter.
    for at in range(0, max(1, len(hidden)), rows):
        h, y = hidden[at : at + rows], labels[at : at + rows]
        if torch.is_grad_enabled() and hidden.requires_grad:
            parts.append(checkpoint(chunk, h, y, use_reentrant=False))
        else:
            parts.append(chunk(h, y))
    return torch.cat([p for p, _ in parts]), torch.cat([e for _, e in parts])
