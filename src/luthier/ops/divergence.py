"""How far a student's distribution is from its teacher's, on target rows only, in chunks.

``R`` target rows, ``V`` vocabulary, ``H`` hidden size, ``K`` of the teacher's likeliest tokens,
``C`` classes of a distribution.

Of a large vocabulary only the teacher's ``K`` likeliest tokens are kept; what is left of its mass
is one class more, and so is what the student leaves to all other tokens. Merging classes never
makes two distributions look further apart than they are, and with ``K = V`` nothing is merged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from luthier.ops.cross_entropy import chunk_rows

Kind = Literal["forward_kl", "reverse_kl", "jensen_shannon"]
Head = Callable[[Tensor], Tensor]


def divergence(teacher: Tensor, student: Tensor, kind: Kind, beta: float = 0.5) -> Tensor:
    """Of each pair of distributions, given as log-probabilities: ``[..., C]`` twice to ``[...]``.

    With ``p`` the teacher's and ``q`` the student's:

    - ``forward_kl``: ``sum p log(p / q)`` (Hinton et al. 2015, arXiv 1503.02531)
    - ``reverse_kl``: ``sum q log(q / p)`` (Gu et al. 2023, arXiv 2306.08543)
    - ``jensen_shannon``: ``beta KL(p || m) + (1 - beta) KL(q || m)``, ``m = beta p + (1 - beta) q``
      (the generalised one of Agarwal et al. 2023, arXiv 2306.13649)

    Classes that the teacher gives no mass at all (``-inf``) add nothing.
    """
    none = teacher == -torch.inf
    p, q = teacher.masked_fill(none, 0.0), student.masked_fill(none, 0.0)
    if kind == "forward_kl":
        return (p.exp() * (p - q)).sum(-1)
    if kind == "reverse_kl":
        return (q.exp() * (q - p)).sum(-1)
    shares = p.new_tensor([beta, 1 - beta]).log()
    m = torch.logaddexp(p + shares[0], q + shares[1])
    return (beta * p.exp() * (p - m) + (1 - beta) * q.exp() * (q - m)).sum(-1)


def top_classes(
    head: Head, hidden: Tensor, count: int, temperature: float, vocabulary: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A softened distribution's likeliest tokens and what is left of it, without gradient.

    Args:
        head: ``[r, H] -> [r, V]`` logits.
        hidden: ``[R, H]``.
        count: ``K``; the whole vocabulary where that is smaller.
        temperature: logits are divided by it.
        vocabulary: ``V``.

    Returns:
        Token ids ``[R, K]``, their log-probabilities ``[R, K]``, and the log of the mass of all
        other tokens ``[R]``, ``-inf`` where there are none.
    """
    parts = []
    rows = chunk_rows(vocabulary)
    with torch.no_grad():
        for at in range(0, max(1, len(hidden)), rows):
            logits = _softened(head, hidden[at : at + rows], temperature)
            top = logits.topk(min(count, logits.shape[-1]), dim=-1)
            normaliser = logits.logsumexp(-1)
            rest = _rest(logits, top.indices) - normaliser
            parts.append((top.indices, top.values - normaliser[:, None], rest))
    tokens, logprobs, rest = (torch.cat(column) for column in zip(*parts, strict=True))
    return tokens, logprobs, rest


def head_divergence(
    head: Head,
    hidden: Tensor,
    teacher: tuple[Tensor, Tensor, Tensor],
    row_weights: Tensor,
    vocabulary: int,
    *,
    kind: Kind,
    temperature: float,
    beta: float = 0.5,
) -> Tensor:
    """Weighted sum over rows of a divergence from the teacher's :func:`top_classes`.

    Logits exist for one chunk at a time and are made again in the backward pass.

    Args:
        head: the student's, ``[r, H] -> [r, V]`` logits.
        hidden: the student's, ``[R, H]``; zero rows give zero, with a gradient of zero.
        teacher: tokens, log-probabilities and rest, at the same temperature.
        row_weights: ``[R]``.
        vocabulary: ``V``.
        kind: see :func:`divergence`.
        temperature: the student's logits are divided by it.
        beta: of ``jensen_shannon``.

    Returns:
        A scalar in nats.
    """

    def chunk(h: Tensor, token: Tensor, logprob: Tensor, rest: Tensor, w: Tensor) -> Tensor:
        logits = _softened(head, h, temperature)
        normaliser = logits.logsumexp(-1, keepdim=True)
        own = logits.gather(1, token) - normaliser
        said = logprob.to(logits.dtype)
        if token.shape[1] < logits.shape[1]:
            own = torch.cat([own, _rest(logits, token)[:, None] - normaliser], dim=1)
            said = torch.cat([said, rest[:, None].to(logits.dtype)], dim=1)
        return (divergence(said, own, kind, beta) * w.to(logits.dtype)).sum()

    total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    rows = chunk_rows(vocabulary)
    # Without rows the head runs all the same: DDP waits for the gradient of every parameter.
    for at in range(0, max(1, len(hidden)), rows):
        part = slice(at, at + rows)
        inputs = (hidden[part], *(column[part] for column in teacher), row_weights[part])
        made = checkpoint(chunk, *inputs, use_reentrant=False)
        assert isinstance(made, Tensor)
        total = total + made
    return total


def _softened(head: Head, hidden: Tensor, temperature: float) -> Tensor:
    logits = head(hidden)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature


def _rest(logits: Tensor, tokens: Tensor) -> Tensor:
    """``logsumexp`` over all tokens but these: no difference of nearly equal numbers."""
    return logits.scatter(1, tokens, -torch.inf).logsumexp(-1)
