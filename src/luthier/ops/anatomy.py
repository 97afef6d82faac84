"""Where the parts of a transformer lie, whatever its architecture calls them.

A parameter's place is 0 below the blocks (embeddings), ``i + 1`` in block ``i`` of ``L``, and
``L + 1`` above them (last norm, heads).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from luthier.core.errors import UserError


def unwrapped(module: nn.Module) -> Any:
    """The transformers model inside a peft model, or itself."""
    inner = getattr(module, "get_base_model", None)
    return inner() if callable(inner) else module


def trunk(model: nn.Module) -> nn.Module:
    """What lies below the heads: embeddings, blocks and the norm behind them."""
    inner = unwrapped(model)
    own = getattr(inner, "trunk", None)
    if isinstance(own, nn.Module):
        return trunk(own)
    return cast("nn.Module", getattr(inner, "base_model", inner))


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks, lowest first: the outermost list of as many as there are layers.

    Raises:
        UserError: an architecture without such a list, or with two.
    """
    config = cast("Any", unwrapped(model)).config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            "an encoder-decoder has two lists of layers, and this goes by the depth of one",
            cure="take a method that needs none: full or lora",
            code="architecture",
        )
    wanted = int(config.num_hidden_layers)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return list(module)
    raise UserError(
        f"no list of {wanted} blocks is found in '{config.model_type}'",
        cure="take a method that needs none: full or lora",
        code="architecture",
    )


def head_parts(model: nn.Module) -> list[nn.Module]:
    """The heads: a fresh one by name, a language model's output matrix."""
    inner = unwrapped(model)
    found = [model.get_submodule(name) for name in getattr(model, "head_names", ())]
    outputs = getattr(inner, "get_output_embeddings", lambda: None)()
    return [*found, outputs] if isinstance(outputs, nn.Module) else found


def places(model: nn.Module) -> dict[str, int]:
    """Every parameter's place, by name; see the module.

    Parameters that a module registers before its blocks lie below them, as every embedding does;
    one that is tied to an embedding is that embedding.
    """
    parts = blocks(model)
    inside = {id(p): i + 1 for i, block in enumerate(parts) for p in block.parameters()}
    above = {id(p) for head in head_parts(model) for p in head.parameters()}
    embeddings = getattr(trunk(model), "get_input_embeddings", lambda: None)()
    if isinstance(embeddings, nn.Module):
        below = {id(p) for p in embeddings.parameters()}
        above -= below
    else:
        below = set()
    found: dict[str, int] = {}
    reached = False
    for name, parameter in model.named_parameters():
        key = id(parameter)
        reached = reached or key in inside
        if key in inside:
            found[name] = inside[key]
        elif key in below or (not reached and key not in above):
            found[name] = 0
        else:
            found[name] = len(parts) + 1
    return found


def frozen_depth(model: nn.Module) -> int:
    """How many of the lowest blocks have nothing that is trained in or below them."""
    place = places(model)
    trained = [place[n] for n, p in model.named_parameters() if p.requires_grad]
    return max(0, min([len(blocks(model)), *(at - 1 for at in trained)]))


def below(model: nn.Module, depth: int) -> Iterator[nn.Module]:
    """Every module of the trunk that lies in no block from ``depth`` on, and in no head."""
    yield from _outside(model, [*blocks(model)[depth:], *head_parts(model)])


def whole(model: nn.Module) -> Iterator[nn.Module]:
    """Every module of the trunk but a head's; of any build."""
    yield from _outside(model, head_parts(model))


def _outside(model: nn.Module, parts: list[nn.Module]) -> Iterator[nn.Module]:
    left_out = {id(module) for part in parts for module in part.modules()}
    yield from (module for module in trunk(model).modules() if id(module) not in left_out)


def silence(modules: Iterator[nn.Module]) -> bool:
    """Switches dropout off, a layer of its own or a number that attention reads.

    Returns:
        Whether there was any.
    """
    found = False
    for module in modules:
        if isinstance(module, nn.Dropout):
            found, module.p = found or module.p > 0, 0.0
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):
                found = found or value > 0
                setattr(module, name, 0.0)
    return found
