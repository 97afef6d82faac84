"""Where the parts of a transformer lie, whatever its architecture calls them.

A parameter's place is 0 below the blocks (embeddings), ``i + 1`` in block ``i`` of ``L``, and
``L + 1`` above them (last norm, heads). Of an encoder-decoder the encoder's blocks are the lower
ones, for every block of the decoder reads what they give; the encoder's last norm lies in its last
block's place, and the embeddings of both sides below.
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
    """The transformer blocks, lowest first, an encoder's before its decoder's.

    Raises:
        UserError: an architecture in which they are not found.
    """
    return [block for _, own in stacks(model) for block in own]


def stacks(model: nn.Module) -> list[tuple[nn.Module, list[nn.Module]]]:
    """Each stack with its blocks: one, or an encoder and the decoder that reads it.

    Raises:
        UserError: an architecture in which they are not found.
    """
    inner = unwrapped(model)
    config = inner.config.get_text_config()
    layers = int(config.num_hidden_layers)
    if not getattr(config, "is_encoder_decoder", False):
        return [(model, _listed(model, layers))]
    reads, writes = inner.get_encoder(), inner.get_decoder()
    writing = int(getattr(config, "num_decoder_layers", None) or config.decoder_layers)
    return [(reads, _listed(reads, layers)), (writes, _listed(writes, writing))]


def _listed(stack: nn.Module, wanted: int) -> list[nn.Module]:
    """The outermost list of as many modules as there are layers."""
    for module in stack.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return list(module)
    raise UserError(
        f"no list of {wanted} blocks is found in '{type(unwrapped(stack)).__name__}'",
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
    one that is tied to an embedding is that embedding. In two stacks embeddings go by their name:
    a norm of theirs is registered behind the blocks (BART).
    """
    sides = stacks(model)
    parts, two = [block for _, own in sides for block in own], len(sides) > 1
    encoder, lower = sides[0]
    ends = {id(p): len(lower) for p in encoder.parameters()} if two else {}
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
        elif key in below or (key not in above and (not reached or (two and "embed" in name))):
            found[name] = 0
        else:
            found[name] = ends.get(key, len(parts) + 1)
    return found


def frozen_depth(model: nn.Module) -> int:
    """How many of the lowest blocks have nothing that is trained in or below them."""
    place = places(model)
    trained = [place[n] for n, p in model.named_parameters() if p.requires_grad]
    return max(0, min([len(blocks(model)), *(at - 1 for at in trained)]))


def below(model: nn.Module, depth: int) -> Iterator[nn.Module]:
    """Every module of the trunk that lies in no block from ``depth`` on, and in no head.

    Of two stacks what lies beside the blocks goes with the last of them: dropout of T5's decoder
    is for its first input and its last output.
    """
    sides = stacks(model)
    parts = [block for _, own in sides for block in own]
    inside = {id(module) for block in parts[:depth] for module in block.modules()}
    going_on: set[int] = set()
    last = 0
    for stack, own in sides if len(sides) > 1 else ():
        last += len(own)
        if depth < last:
            going_on |= {id(module) for module in stack.modules()} - inside
    for module in _outside(model, [*parts[depth:], *head_parts(model)]):
        if id(module) not in going_on:
            yield module


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
