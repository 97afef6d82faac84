"""Which matrices an adapter sits on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from luthier.core.errors import RecipeError, nearest


def is_matrix(module: nn.Module) -> bool:
    """Whether a layer is one matrix, GPT-2's transposed ones included."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def adapted(model: nn.Module) -> dict[str, Any]:
    """Name in the base -> LoRA layer of every matrix that has an adapter."""
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def leaves(base: nn.Module, targets: str | tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of the matrices that an adapter sits on, and of those that ``targets`` means."""
    from peft.tuners.lora import LoraLayer

    matrices = {
        name: isinstance(module, LoraLayer)
        for name, module in base.named_modules()
        if is_matrix(module) or isinstance(module, LoraLayer)
        if ".lora_" not in name and not name.endswith(".base_layer")
    }
    head = getattr(base, "get_output_embeddings", lambda: None)()

    def meant(name: str) -> bool:
        if isinstance(targets, tuple):
            return any(name == t or name.endswith(f".{t}") for t in targets)
        if targets == "attention":
            return _in_attention(name)
        if targets == "all-linear":
            return base.get_submodule(name) is not head
        return re.fullmatch(targets, name) is not None

    def last_parts(names: Iterable[str]) -> list[str]:
        return sorted({name.rsplit(".", 1)[-1] for name in names})

    found = last_parts(name for name, yes in matrices.items() if yes)
    return found, last_parts(filter(meant, matrices))


def check_patterns(model: nn.Module, patterns: Mapping[str, Mapping[str, Any]]) -> None:
    """Every pattern of ``rank_pattern`` and ``alpha_pattern`` must mean some matrix.

    Raises:
        RecipeError: one means none that has an adapter.
    """
    names = list(adapted(model))
    for setting, given in patterns.items():
        for key in given:
            # As peft reads them: the end of a name, as a regular expression.
            if not any(re.match(rf"(.*\.)?({key})$", name) for name in names):
                known = sorted({name.rsplit(".", 1)[-1] for name in names})
                raise RecipeError(
                    f"method.{setting} '{key}' means no matrix with an adapter: "
                    f"{nearest(key, known)}"
                )


def attention_layers(model: nn.Module) -> list[str]:
    """Names of the matrices inside attention blocks.

    The last part of their path, and the part before it where another block has a matrix of that
    name as well.
    """
    matrices = [name for name, module in model.named_modules() if is_matrix(module)]
    elsewhere = {name.rsplit(".", 1)[-1] for name in matrices if not _in_attention(name)}
    return sorted(
        {
            ".".join(name.split(".")[-2:]) if leaf in elsewhere else leaf
            for name in filter(_in_attention, matrices)
            for leaf in [name.rsplit(".", 1)[-1]]
        }
    )


def _in_attention(name: str) -> bool:
    return any(word in name.lower() for word in ("attn", "attention"))
