"""A frozen matrix with a trained low-rank product beside it, as one operation.

``N`` tokens, ``I`` inputs, ``O`` outputs, ``r`` rank.

Written out in plain operations, ``W x + s B A x`` (Hu et al. 2021, arXiv 2106.09685) goes over
its widest tensors four times more than it must: the update is made, scaled and added, and so is
its gradient. Here both products add into the same memory, and the factor goes to the narrow side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from luthier.ops.precision import compute_dtype


def low_rank_linear(
    x: Tensor,
    weight: Tensor | Callable[[torch.dtype], Tensor],
    bias: Tensor | None,
    down: Tensor,
    up: Tensor,
    scale: float,
) -> Tensor:
    """``x W^T + b + scale (x A^T) B^T``; differentiable once in ``x``, ``down`` and ``up``.

    Args:
        x: ``[..., I]``.
        weight: ``[O, I]``, frozen; or what unpacks it, once forward and once backward.
        bias: ``[O]``, frozen, or none.
        down: A, ``[r, I]``.
        up: B, ``[O, r]``.
        scale: factor on the update.

    Returns:
        ``[..., O]`` in the dtype of the products (autocast's where it is on).
    """
    assert bias is None or not bias.requires_grad, "a bias under adapters is frozen"
    dtype = compute_dtype(x)
    rows = x.reshape(-1, x.shape[-1]).to(dtype)
    matrix: Tensor | Callable[[], Tensor]
    if isinstance(weight, Tensor):
        assert not weight.requires_grad, "a matrix under adapters is frozen"
        matrix = weight.to(dtype)
    else:
        matrix = partial(weight, dtype)
    bias = None if bias is None else bias.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        out = _LowRank.apply(  # type: ignore[no-untyped-call]
            rows, matrix, bias, down.to(dtype), up.to(dtype), scale
        )
    assert isinstance(out, Tensor)
    return out.view(*x.shape[:-1], out.shape[-1])


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: Tensor | Callable[[], Tensor],
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        kept = isinstance(matrix, Tensor)
        weight = matrix if isinstance(matrix, Tensor) else matrix()
        inner = (x @ down.T).mul_(scale)
        out = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
        out.addmm_(inner, up.T)
        ctx.save_for_backward(x, weight if kept else None, down, up, inner)
        ctx.scale, ctx.unpack = scale, None if kept else matrix
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, inner = ctx.saved_tensors
        wants_x, _, _, wants_down, wants_up, _ = ctx.needs_input_grad
        d_x = d_down = d_up = None
        if wants_x or wants_down:
            d_inner = (grad @ up).mul_(ctx.scale)
            if wants_down:
                d_down = d_inner.T @ x
            if wants_x:
                weight = weight if ctx.unpack is None else ctx.unpack()
                d_x = (grad @ weight).addmm_(d_inner, down)
        if wants_up:
            d_up = grad.T @ inner
        return d_x, None, None, d_down, d_up, None
