"""Frozen matrices in four bits (NF4), and exact products with what they stand for.

``O`` outputs, ``I`` inputs.

Each block of 64 weights is divided by its largest and rounded to one of 16 quantiles of a normal
distribution; the blocks' factors are themselves kept in 8 bits (double quantisation: Dettmers et
al. 2023, arXiv 2305.14314). 4.13 bits a weight. bitsandbytes rounds and unpacks. The products are
ours: its kernels for evaluation on CPUs compute in bfloat16 whatever was asked, and a model must
not change between training and evaluation.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn

from luthier.core.errors import RecipeError
from luthier.ops.precision import compute_dtype

#: Weights that share a factor.
BLOCK = 64


@cache
def library() -> Any:
    """The library bitsandbytes.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        with _nothing_fetched():
            import bitsandbytes
    except ImportError as error:
        raise RecipeError(
            "a quantised base needs bitsandbytes, which is not installed",
            cure="pip install 'luthier[qlora]', or take method: lora",
            code="missing-extra",
        ) from error
    return bitsandbytes


def peft() -> Any:
    """The library peft; it imports bitsandbytes where that is installed."""
    with _nothing_fetched():
        import peft as found
    return found


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """While open, an import of bitsandbytes finds no ``kernels``.

    Through that package it would fetch machine code from the hub and run it, on CPUs that know
    bfloat16.
    """
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level, hidden = logger.level, "bitsandbytes" not in sys.modules
    before = sys.modules.get("kernels")
    if hidden:
        sys.modules["kernels"] = None  # type: ignore[assignment]
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        if hidden:
            del sys.modules["kernels"]
            if before is not None:
                sys.modules["kernels"] = before
            logger.setLevel(level)


def is_quantized(module: nn.Module) -> bool:
    """Whether this layer's matrix is kept in four bits."""
    kind = type(module)
    return kind.__name__ == "Linear4bit" and kind.__module__.startswith("bitsandbytes.")


def holds_quantized(model: nn.Module) -> bool:
    """Whether any layer's matrix is."""
    return any(is_quantized(module) for module in model.modules())


def numel(parameter: Tensor) -> int:
    """Weights that a parameter stands for, packed or not."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else torch.Size(state.shape).numel())


def nbytes(parameter: Tensor) -> int:
    """Bytes that a parameter takes, the factors of its blocks included."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return int(parameter.nbytes)
    nested = state.state2.absmax.nbytes if state.nested else 0
    return int(parameter.nbytes + state.absmax.nbytes + nested)


def expected_bytes(model: nn.Module, *, packed: bool) -> int:
    """Bytes of a model's parameters, known from its shape; ``packed``: its matrices in four bits.

    Half a byte a weight, a byte a block, and a float32 for every 256 blocks.
    """
    total = sum(nbytes(p) for p in model.parameters())
    if not packed:
        return total
    heads = getattr(model, "head_names", ())
    matrices = [cast("nn.Linear", model.get_submodule(n)) for n in targets(model, heads)]
    counts = [matrix.weight.numel() for matrix in matrices]
    return total - sum(4 * n - n // 2 - n // BLOCK - n // BLOCK // 64 for n in counts)


def dequantized(layer: Any, dtype: torch.dtype) -> Tensor:
    """The matrix ``[O, I]`` that a layer's packed one stands for."""
    weight = layer.weight
    # A move between devices may leave the state with the layer alone.
    state = getattr(weight, "quant_state", None) or layer.quant_state
    factors = state.absmax
    if state.nested:
        factors = library().functional.dequantize_blockwise(factors, state.state2) + state.offset
    count = int(torch.Size(state.shape).numel())
    # As rows of one block each: on CPUs the library takes the wrong factors where a matrix's rows
    # are no whole number of blocks.
    shape = [count // BLOCK, BLOCK] if count % BLOCK == 0 else [1, count]
    unpack = torch.ops.bitsandbytes.dequantize_4bit.default
    matrix: Tensor = unpack(weight.data, factors, BLOCK, "nf4", shape, state.dtype)
    return matrix.view(*state.shape).to(dtype)


def check_rows(model: nn.Module) -> None:
    """Every quantised matrix must have rows of whole blocks, for code that is not ours.

    Raises:
        RecipeError: one has not.
    """
    for name, module in model.named_modules():
        if is_quantized(module) and cast("Any", module).in_features % BLOCK:
            raise RecipeError(
                f"method.dora on a quantised base needs matrices whose inputs are a multiple of "
                f"{BLOCK}, and '{name}' has {cast('Any', module).in_features}",
                cure="method.dora: false, or method: lora",
                code="pairing",
            )


def matrix_of(layer: Any) -> Tensor:
    """A layer's matrix ``[O, I]`` in float32, whatever it is kept as."""
    if is_quantized(layer):
        return dequantized(layer, torch.float32)
    weight: Tensor = layer.weight.detach()
    return (weight if isinstance(layer, nn.Linear) else weight.T).float()


def targets(model: nn.Module, skip: Collection[str] = ()) -> list[str]:
    """Names of the matrices to quantise: all but the output head, adapters, and ``skip``.

    And but those that their architecture wants in full: T5's second feed-forward matrix.
    """
    full = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return [
        name
        for name, module in model.named_modules()
        if (type(module) is nn.Linear or type(module).__name__ == "Conv1D")
        and module is not head
        and ".lora_" not in name
        and full.isdisjoint(name.split("."))
        and not any(name == each or name.startswith(f"{each}.") for each in skip)
    ]


def quantize(model: nn.Module, skip: Collection[str] = ()) -> int:
    """Puts the matrices of a model in memory into four bits, in place; returns how many.

    The same bits as where a model is quantised while it is read; matrices that are quantised
    already stay as they are.
    """
    names = targets(model, skip)
    for name in names:
        old: Any = model.get_submodule(name)
        weight = old.weight.detach()
        plain = isinstance(old, nn.Linear)  # GPT-2's matrices are stored transposed
        made = _layer(weight if plain else weight.T, old.bias)
        made.source_cls = type(old)
        model.set_submodule(name, made)
    exact(model)
    return len(names)


def exact(model: nn.Module) -> None:
    """Every quantised layer computes in the arithmetic of its input, and cannot be trained."""
    for module in model.modules():
        if is_quantized(module):
            module.forward = MethodType(_forward, module)
        elif hasattr(module, "config") and holds_quantized(module):
            module.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft asks


def _layer(matrix: Tensor, bias: Tensor | None) -> Any:
    bnb = library()
    made = bnb.nn.Linear4bit(
        matrix.shape[1], matrix.shape[0], bias is not None, quant_type="nf4", device="meta"
    )
    made.weight = bnb.nn.Params4bit(
        matrix.float().contiguous(),
        requires_grad=False,
        blocksize=BLOCK,
        compress_statistics=True,
        quant_type="nf4",
        module=made,
    ).to(matrix.device)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made


def _forward(layer: Any, x: Tensor) -> Tensor:
    """``x W^T + b``, W unpacked for the product and again for its gradient; ``[..., O]``."""
    dtype = compute_dtype(x)
    rows = x.reshape(-1, x.shape[-1]).to(dtype)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        out = _Linear.apply(  # type: ignore[no-untyped-call]
            rows, partial(dequantized, layer, dtype), bias
        )
    assert isinstance(out, Tensor)
    return out.view(*x.shape[:-1], out.shape[-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Any, bias: Tensor | None) -> Tensor:
        ctx.matrix = matrix
        return nn.functional.linear(x, matrix(), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad @ ctx.matrix(), None, None
