"""Adapter layers of peft computed in one operation where that is the same thing."""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

from torch import Tensor, nn

from luthier.ops.low_rank import low_rank_linear
from luthier.ops.quantized import dequantized, is_quantized


def fuse(model: nn.Module) -> int:
    """Gives every plain LoRA layer a forward of its own; returns how many there are.

    A layer decides at each call: merged, switched off, under several adapters, with dropout or as
    DoRA it computes as peft does. Parameters, names and files stay.
    """
    from peft.tuners.lora.layer import Linear

    layers = [
        module
        for module in model.modules()
        if type(module) is Linear or is_quantized(getattr(module, "base_layer", module))
        if hasattr(module, "lora_A")
    ]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    name = _plain(layer) if not args and not kwargs else None
    if name is None:
        return type(layer).forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
    base = layer.base_layer
    weight: Any
    if is_quantized(base):
        weight = partial(dequantized, base)
    else:
        weight = base.weight if isinstance(base, nn.Linear) else base.weight.T
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    return low_rank_linear(x, weight, base.bias, down, up, layer.scaling[name])


def _plain(layer: Any) -> str | None:
    """The one adapter of a layer that is nothing but ``W x + s B A x``, else ``None``."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    name: str = layer.active_adapters[0]
    base = layer.base_layer
    if name not in layer.lora_A or name in layer.lora_variant:
        return None
    packed = is_quantized(base)
    if not packed and type(base) is not nn.Linear and type(base).__name__ != "Conv1D":
        return None
    if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
        return None
    dropout = layer.lora_dropout[name]
    silent = isinstance(dropout, nn.Identity) or not (layer.training and dropout.p)
    if not silent or layer.lora_B[name].bias is not None:
        return None
    dtypes = {layer.lora_A[name].weight.dtype, layer.lora_B[name].weight.dtype}
    dtypes |= set() if packed else {base.weight.dtype}
    return name if len(dtypes) == 1 else None
