"""Adapters that start as something: PiSSA takes it from the matrix, LoftQ from its rounding.

``W`` the matrix in full, ``Q`` what it is kept as, ``s`` the scale, ``r`` the rank.

Both start from the largest singular values of a matrix ``M``: ``A0 = (S_r / s)^(1/2) V_r^T`` and
``B0 = U_r (S_r / s)^(1/2)``, so that ``s B0 A0`` is the best of rank r to ``M``.

- PiSSA (Meng et al. 2024, arXiv 2404.02948): ``M = W``; the frozen part becomes ``W - s B0 A0``,
  and the model computes what it computed.
- LoftQ (Li et al. 2023, arXiv 2310.08659): ``M = W - Q``; the model starts closer to the one in
  full. One alternation of the paper's, so that ``Q`` stays what anyone gets who quantises ``W``.

What training changed is ``s (B A - B0 A0)``, of rank 2r: so it is saved, ``[A; A0]`` and
``[B, -B0]``, an ordinary adapter for the original matrices.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from luthier.methods._lora_targets import adapted
from luthier.ops.quantized import matrix_of

Pair = tuple[Tensor, Tensor]
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Up to this size singular values are computed exactly; above, by random projections.
_EXACT = 1024


def principal(matrix: Tensor, rank: int, scale: float) -> Pair:
    """``A0 [r, I]`` and ``B0 [O, r]`` of a matrix ``[O, I]``.

    Random projections (Halko et al. 2011, arXiv 0909.4061) where that is much faster.
    """
    wide = matrix.detach().float()
    if min(wide.shape) <= max(_EXACT, rank):
        left, values, right = torch.linalg.svd(wide, full_matrices=False)
        right = right.T
    else:
        left, values, right = torch.svd_lowrank(wide, q=rank + 16, niter=8)
    roots = (values[:rank] / scale).sqrt()
    down, up = (right[:, :rank] * roots).T, left[:, :rank] * roots
    missing = rank - down.shape[0]  # a matrix smaller than the rank
    if missing > 0:
        down = torch.cat([down, down.new_zeros(missing, down.shape[1])])
        up = torch.cat([up, up.new_zeros(up.shape[0], missing)], dim=1)
    return down.contiguous(), up.contiguous()


def begin(model: nn.Module, matrices: Mapping[str, Tensor] | None) -> dict[str, Pair]:
    """Starts every adapter of a fresh peft model; returns ``A0, B0`` by the matrix's name.

    Args:
        model: with adapters that are still nothing.
        matrices: of LoftQ, the matrices in full; of PiSSA none.
    """
    starts = {}
    for name, layer in adapted(model).items():
        [adapter] = layer.active_adapters
        own = matrix_of(layer.base_layer)
        wanted = own if matrices is None else matrices[name] - own
        pair = principal(wanted, layer.r[adapter], layer.scaling[adapter])
        starts[name] = pair
        with torch.no_grad():
            for part, value in zip((layer.lora_A, layer.lora_B), pair, strict=True):
                part[adapter].weight.copy_(value)
    if matrices is None:
        take_out(model, starts)
    return starts


def take_out(model: nn.Module, starts: Mapping[str, Pair]) -> None:
    """The frozen matrices become what the starts leave of them: ``W - s B0 A0``."""
    for name, layer in adapted(model).items():
        [adapter] = layer.active_adapters
        down, up = starts[name]
        part = layer.scaling[adapter] * (up @ down)
        base = layer.base_layer
        with torch.no_grad():
            base.weight.sub_(part if isinstance(base, nn.Linear) else part.T)


def widen(folder: Path, starts: Mapping[str, Pair], *, rslora: bool) -> None:
    """Turns a saved adapter of rank r into the one of rank 2r for the original matrices."""
    tensors = load_file(folder / _WEIGHTS)
    for name, (down, up) in starts.items():
        stem = f"base_model.model.{name}"
        a, b = f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"
        tensors[a] = torch.cat([tensors[a], down.to(tensors[a])])
        tensors[b] = torch.cat([tensors[b], -up.to(tensors[b])], dim=1)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    growth = math.sqrt(2) if rslora else 2  # the scale stays: alpha / r, or alpha / sqrt(r)
    config["r"] *= 2
    config["lora_alpha"] *= growth
    config["rank_pattern"] = {k: 2 * v for k, v in config["rank_pattern"].items()}
    config["alpha_pattern"] = {k: growth * v for k, v in config["alpha_pattern"].items()}
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def narrow(folder: Path) -> tuple[dict[str, Tensor], dict[str, Pair]]:
    """The inverse of :func:`widen`: the tensors of rank r, and the starts by matrix."""
    tensors = load_file(folder / _WEIGHTS)
    starts: dict[str, Pair] = {}
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        stem = key.removesuffix(".lora_A.weight")
        down, up = tensors[key], tensors[f"{stem}.lora_B.weight"]
        rank = len(down) // 2
        starts[stem.removeprefix("base_model.model.")] = (down[rank:], -up[:, rank:])
        tensors[key] = down[:rank].contiguous()
        tensors[f"{stem}.lora_B.weight"] = up[:, :rank].contiguous()
    return tensors, starts


def load_into(model: Any, tensors: dict[str, Tensor]) -> None:
    """Puts saved tensors into a peft model that has their shape."""
    from peft import set_peft_model_state_dict

    found = set_peft_model_state_dict(model, tensors)
    assert not found.unexpected_keys, found.unexpected_keys
