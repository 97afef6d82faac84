"""A model as a tree of named parts, with what of it is trained; layers that are alike once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from luthier.ops.quantized import is_quantized, numel


@dataclass(frozen=True)
class Part:
    """A line of the tree.

    Attributes:
        depth: how far below the whole.
        name: of the part in the one above it; ``layers 0 to 5`` where they are alike.
        what: its class and shape, and the adapter that sits on it; empty of a mere container.
        total: parameters in it, of all that are alike.
        trained: how many of them are trained.
    """

    depth: int
    name: str
    what: str
    total: int
    trained: int


def outline(module: nn.Module) -> list[Part]:
    """The tree of a model, as a method left it."""
    return list(_lines(unwrapped(module), 0))


def unwrapped(module: Any) -> nn.Module:
    """The model inside a peft model: its wrapping is no part of it."""
    inner = getattr(module, "base_model", module)
    found: nn.Module = getattr(inner, "model", module) if inner is not module else module
    return found if type(module).__name__.startswith("Peft") else module


def _lines(module: nn.Module, depth: int) -> Iterator[Part]:
    for name, count, part in _grouped(module):
        total, trained = _counts(part)
        what = _described(part)
        yield Part(depth, name, what, total * count, trained * count)
        if not what:
            yield from _lines(unwrapped(part), depth + 1)


def _grouped(module: nn.Module) -> Iterator[tuple[str, int, nn.Module]]:
    """Children with parameters; neighbours of a list that are alike become one."""
    children = [(n, c) for n, c in module.named_children() if _counts(c)[0]]
    # A list of layers stands in its children: "layers 0 to 5".
    flat: list[tuple[str, nn.Module]] = []
    for name, child in children:
        if isinstance(child, nn.ModuleList):
            flat += [(f"{name} {n}", c) for n, c in child.named_children()]
        else:
            flat.append((name, child))
    at = 0
    while at < len(flat):
        name, part = flat[at]
        end, seen = at + 1, _signature(part)
        while " " in name and end < len(flat) and _signature(flat[end][1]) == seen:
            end += 1
        count = end - at
        last = flat[end - 1][0].rpartition(" ")[2]
        yield (name if count == 1 else f"{name} to {last}"), count, part
        at = end


def _counts(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    return sum(map(numel, parameters)), sum(p.numel() for p in parameters if p.requires_grad)


def _signature(module: nn.Module) -> tuple[Any, ...]:
    own = tuple((n, tuple(p.shape), p.requires_grad) for n, p in module.named_parameters())
    return type(module), own


def _described(module: Any) -> str:
    """Class and shape of a part without further ones; an adapter's matrices belong to it."""
    base = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
    inner = base if isinstance(base, nn.Module) else module
    deeper = any(_counts(child)[0] for child in inner.children())
    if deeper:
        return ""
    shapes = [tuple(p.shape) for p in inner.parameters()]
    shape = "×".join(map(str, shapes[0])) if shapes else ""
    if is_quantized(inner):
        shape = f"{inner.out_features}×{inner.in_features} in four bits"
    words = [f"{type(inner).__name__} {shape}".strip()]
    ranks = sorted(set(getattr(module, "r", {}).values())) if inner is not module else []
    if ranks:
        words.append(f"rank {ranks[0]}")
    elif inner is not module:
        words.append("new rows" if hasattr(module, "token_adapter") else type(module).__name__)
    return " + ".join(words)
