"""A smaller model from some of a larger one's layers, as a student to begin with.

The chosen blocks keep their order and their weights; embeddings, final norm and head come along
(Sanh et al. 2019, arXiv 1910.01108, took every other layer of BERT).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from luthier.core.errors import RecipeError
from luthier.ops import bottleneck


def chosen(layers: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    """The places of the layers that are kept.

    Args:
        layers: places from 0, or how many, drawn evenly with the first and the last one.
        count: how many the model has.

    Raises:
        RecipeError: more than there are, or a place that there is not.

    >>> chosen(3, 12)
    (0, 6, 11)
    """
    most = layers if isinstance(layers, int) else max(layers) + 1
    if most > count:
        asked = f"{layers} of" if isinstance(layers, int) else f"layer {max(layers)} of"
        raise RecipeError(
            f"model.layers: {asked} {count} layers, which are numbered from 0 to {count - 1}",
            code="layers",
        )
    if not isinstance(layers, int):
        return layers
    return tuple(
        (2 * i * (count - 1) + layers - 1) // (2 * max(1, layers - 1)) for i in range(layers)
    )


def shortened(config: Any, layers: int | tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """A config with these layers only, what it says layer by layer included, and their places.

    Raises:
        RecipeError: there are no such layers, or the model is more than a stack of them.
    """
    if config.get_text_config() is not config or getattr(config, "is_encoder_decoder", False):
        raise RecipeError(
            f"model.layers: {config.model_type} is more than one stack of layers",
            cure="take a decoder or an encoder",
            code="layers",
        )
    count = int(config.num_hidden_layers)
    kept = chosen(layers, count)
    values = config.to_dict()
    values[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
    for name, value in values.items():
        if "layer" in name and isinstance(value, list | tuple) and len(value) == count:
            values[name] = [value[i] for i in kept]
    return type(config).from_dict(values), kept


def student(module: Any, layers: int | tuple[int, ...]) -> Any:
    """A model of the same class with some of the layers; an adapter on it is added first.

    Raises:
        UserError: there are no such layers, one of them cannot stand at its new place, or an
            adapter cannot be added.
    """
    bottleneck.refuse(module)
    if callable(merge := getattr(module, "merge_and_unload", None)):
        module = merge()
    if isinstance(trunk := getattr(module, "trunk", None), nn.Module):
        module.trunk = student(trunk, layers)
        return module
    config, kept = shortened(module.config, layers)
    stack = _stack(module, int(module.config.num_hidden_layers))
    places = {f"{stack}.{old}.": f"{stack}.{new}." for new, old in enumerate(kept)}
    dtype = next(module.parameters()).dtype
    with torch.random.fork_rng(devices=[]):
        made = type(module)(config).to(dtype)
    if getattr(module, "pooler", made) is None:  # a head of ours took it away
        made.pooler = None
    weights = {}
    for name, tensor in module.state_dict().items():
        if not name.startswith(f"{stack}."):
            weights[name] = tensor
            continue
        layer = f"{stack}.{name.removeprefix(f'{stack}.').split('.', 1)[0]}."
        if layer in places:
            weights[places[layer] + name.removeprefix(layer)] = tensor
    found = made.load_state_dict(weights, strict=False)
    if odd := [*found.missing_keys, *found.unexpected_keys]:
        raise RecipeError(
            f"model.layers: these layers of {config.model_type} do not fit their new places: "
            f"'{odd[0]}' is not in both",
            cure="keep layer 0 as the first one",
            code="layers",
        )
    made.tie_weights()
    made.train(module.training)
    for name in ("generation_config", "head_names", "adapter_task"):
        if hasattr(module, name):
            setattr(made, name, getattr(module, name))
    return made


def _stack(module: nn.Module, count: int) -> str:
    """Where the blocks stand: the list of as many modules as there are layers."""
    found: list[str] = [
        name
        for name, each in module.named_modules()
        if isinstance(each, nn.ModuleList) and len(each) == count
    ]
    if not found:
        raise RecipeError(
            f"model.layers: {type(module).__name__} keeps its layers in a way not known here",
            code="layers",
        )
    return min(found, key=len)
