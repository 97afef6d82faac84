"""Linear layer plus cross entropy on target rows only, in chunks, gradient made on the way.

``R`` target rows, ``V`` vocabulary, ``H`` hidden size.

Logits of a large vocabulary are the largest tensor of a training step. Here they exist for one
chunk of rows at a time, and the same pass that finds the loss leaves its gradient behind, so the
backward pass multiplies by one number and recomputes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from luthier.ops.precision import compute_dtype

#: Bytes of logits that may exist at once.
CHUNK_BYTES = 32 * 2**20

#: Rows of a chunk come in multiples of this where shapes are costly.
_FILL = 128


def chunk_rows(vocabulary: int, width: int = 4) -> int:
    """Rows whose logits of ``width`` bytes each fit :data:`CHUNK_BYTES`."""
    return max(1, CHUNK_BYTES // (vocabulary * width))


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    row_weights: Tensor,
    *,
    bias: Tensor | None = None,
    smoothing: float = 0.0,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Weighted sum over rows of ``-log softmax(scale * (W h + b))[label]``.

    With label smoothing ``e`` (Szegedy et al. 2016, arXiv 1512.00567) the target is
    ``(1 - e) * onehot + e / V``, as in torch's own cross entropy. The sum is differentiable once
    in ``hidden``, ``weight`` and ``bias``; the gradient must be asked for by a scalar.

    Args:
        hidden: ``[R, H]``; zero rows give zero, with a gradient of zero.
        weight: ``[V, H]``.
        labels: ``[R]`` token ids.
        row_weights: ``[R]`` weight of each row.
        bias: ``[V]``.
        smoothing: ``e`` above.
        softcap: logits become ``softcap * tanh(logit / softcap)`` (Gemma 2).
        scale: factor on the logits before the cap (Cohere, Granite).

    Returns:
        A scalar in nats, float32 (float64 for float64 input).
    """
    result = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, labels, row_weights, (smoothing, softcap, scale)
    )
    assert isinstance(result, Tensor)
    return result


def head_cross_entropy(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    labels: Tensor,
    row_weights: Tensor,
    vocabulary: int,
    *,
    smoothing: float = 0.0,
) -> Tensor:
    """The same sum for a head that is no plain matrix (an adapter sits on it).

    Logits exist for one chunk at a time and are made again in the backward pass.
    """

    def chunk(h: Tensor, y: Tensor, w: Tensor) -> Tensor:
        logits = head(h)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)
        return (losses * w.to(losses.dtype)).sum()

    total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    rows = chunk_rows(vocabulary)
    # Without rows the head runs all the same: DDP waits for the gradient of every parameter.
    for at in range(0, max(1, len(hidden)), rows):
        part = slice(at, at + rows)
        inputs = (hidden[part], labels[part], row_weights[part])
        made = checkpoint(chunk, *inputs, use_reentrant=False)
        assert isinstance(made, Tensor)
        total = total + made
    return total


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        row_weights: Tensor,
        options: tuple[float, float | None, float],
    ) -> Tensor:
        dtype = compute_dtype(hidden)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        total = hidden.new_zeros((), dtype=wide)
        wanted = ctx.needs_input_grad
        grads = _Gradients(hidden, weight, bias, wanted, wide)
        with torch.autocast(hidden.device.type, enabled=False):
            matrix = weight.detach().to(dtype)
            rows = chunk_rows(weight.shape[0], torch.finfo(wide).bits // 8)
            for at in range(0, len(hidden), rows):
                part = slice(at, at + rows)
                h, y, w = _filled(hidden[part].detach().to(dtype), labels[part], row_weights[part])
                logits = (h @ matrix.T).to(wide)
                loss, logits = _chunk(logits, bias, y, w, options)
                total += loss
                if any(wanted[:3]):
                    grads.add(part, logits, h, matrix)
        ctx.save_for_backward(*grads.finished(hidden, weight))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [g * grad.to(g.dtype) if g is not None else None for g in ctx.saved_tensors]
        return (*scaled, None, None, None)


class _Gradients:
    """What the backward pass will hand on, filled chunk by chunk."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        wanted: tuple[bool, ...],
        wide: torch.dtype,
    ) -> None:
        self.hidden = torch.empty_like(hidden, dtype=wide) if wanted[0] else None
        self.weight = torch.zeros_like(weight, dtype=wide) if wanted[1] else None
        self.bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None

    def add(self, part: slice, d_logits: Tensor, h: Tensor, matrix: Tensor) -> None:
        narrow = d_logits.to(matrix.dtype)
        if self.hidden is not None:
            self.hidden[part] = (narrow @ matrix)[: len(self.hidden[part])]
        if self.weight is not None:
            self.weight += narrow.T @ h
        if self.bias is not None:
            self.bias += d_logits.sum(0)

    def finished(self, hidden: Tensor, weight: Tensor) -> tuple[Tensor | None, ...]:
        to = (hidden.dtype, weight.dtype, None)
        return tuple(
            g if g is None or t is None else g.to(t)
            for g, t in zip((self.hidden, self.weight, self.bias), to, strict=True)
        )


def _filled(h: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """On CPUs, 16-bit products are built anew for each shape: rows of weight 0 keep shapes few."""
    extra = -len(h) % _FILL if h.device.type == "cpu" and h.dtype == torch.bfloat16 else 0
    if not extra:
        return h, labels, weights
    return F.pad(h, (0, 0, 0, extra)), F.pad(labels, (0, extra)), F.pad(weights, (0, extra))


def _chunk(
    logits: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    row_weights: Tensor,
    options: tuple[float, float | None, float],
) -> tuple[Tensor, Tensor]:
    """Loss of a chunk and its gradient with respect to ``W h``, made in the logits' memory."""
    smoothing, softcap, scale = options
    if bias is not None:
        logits += bias.detach()
    if scale != 1.0:
        logits *= scale
    slope = None
    if softcap is not None:
        bent = torch.tanh(logits / softcap)
        slope = 1 - bent * bent
        logits = bent * softcap
    normaliser = logits.logsumexp(-1, keepdim=True)
    picked = logits.gather(1, labels[:, None])
    losses = (normaliser - picked)[:, 0]
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * (normaliser[:, 0] - logits.mean(-1))
    w = row_weights.to(logits.dtype)
    loss = (losses * w).sum()
    d = logits.sub_(normaliser).exp_()
    if smoothing:
        d -= smoothing / d.shape[1]
    d.scatter_add_(1, labels[:, None], torch.full_like(picked, smoothing - 1))
    d *= w[:, None] * scale
    if slope is not None:
        d *= slope
    return loss, d
