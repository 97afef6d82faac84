"""The trainable parameters as they were at step 0, to compute what the model computed then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luthier.core.errors import RecipeError
from luthier.ops import bottleneck
from luthier.ops.quantized import holds_quantized


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that is trained."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the submodules that are a fresh head, always trained in full; often none."""
    return tuple(getattr(model, "head_names", ()))


def merged(model: nn.Module) -> nn.Module:
    """The model with the adapter of a continued run, where it has one, added to its weights.

    Raises:
        UserError: an adapter that cannot be added.
    """
    assert not holds_quantized(model), "a base in four bits is never merged into"
    bottleneck.refuse(model)
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise RecipeError(
            "the run continues learned vectors before a text, which no weights can hold",
            cure="start from their base",
            code="pairing",
        )
    merge = getattr(model, "merge_and_unload", None)
    if callable(merge):
        heads = head_names(model)
        plain: nn.Module = merge()
        if heads:
            plain.head_names = heads  # type: ignore[assignment]
        return plain
    trunk = getattr(model, "trunk", None)
    if isinstance(trunk, nn.Module) and head_names(model):
        model.trunk = merged(trunk)
    return model


def reloaded(model: nn.Module, folder: Path) -> nn.Module:
    """Full weights from a folder, as a model of the same class and dtype."""
    loaded: Any = type(model).from_pretrained(  # type: ignore[attr-defined]
        folder, dtype=next(model.parameters()).dtype
    )
    if getattr(model, "pooler", loaded) is None:
        loaded.pooler = None
    if heads := head_names(model):
        loaded.head_names = heads
    return loaded  # type: ignore[no-any-return]


class Snapshot:
    """A copy of the trainable parameters, swapped in while the reference is open."""

    def __init__(self, model: nn.Module) -> None:
        self.values = {name: p.detach().clone() for name, p in trainable(model).items()}

    @contextmanager
    def opened(self, model: nn.Module) -> Iterator[None]:
        """The model computes with the copy; the trained values come back on leaving."""
        current = trainable(model)
        with torch.no_grad():
            kept: dict[str, Tensor] = {}
            for name, value in self.values.items():
                kept[name] = current[name].data
                current[name].data = value
        try:
            yield
        finally:
            for name, value in kept.items():
                current[name].data = value


def groups_by_decay(model: nn.Module) -> list[dict[str, object]]:
    """Two optimizer groups: matrices, which weight decay may shrink, and everything else."""
    named = trainable(model)
    groups: list[dict[str, object]] = []
    for decays in (True, False):
        names = [n for n, p in named.items() if (p.ndim >= 2) == decays]
        if names:
            params = [named[n] for n in names]
            groups.append({"params": params, "names": names, "rate": 1.0, "decay": decays})
    return groups
