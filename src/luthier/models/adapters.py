"""Adapters on their base, peft's and our own bottlenecks; safetensors only."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from luthier.core.errors import UserError
from luthier.models.heads import PooledClassifier
from luthier.models.several import SeveralHeads
from luthier.ops import bottleneck
from luthier.ops.quantized import peft


def put_on(module: nn.Module, folder: str) -> nn.Module:
    """A base with the adapter of a folder, frozen.

    Raises:
        UserError: it is pickled, of another kind of model, or does not fit.
    """
    if (Path(folder) / bottleneck.CONFIG).is_file():
        adapters = bottleneck.Adapters.of(module)
        adapters.load(folder)
        adapters.activate(bottleneck.DEFAULT)
        return module
    PeftModel = peft().PeftModel
    if not (Path(folder) / "adapter_model.safetensors").is_file():
        raise UserError(
            f"adapter '{folder}' has no adapter_model.safetensors",
            cure="only safetensors are loaded, never pickles: convert the weights first",
        )
    classifies = hasattr(module, "head_names")
    asked = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    if classifies and asked.get("task_type") == "CAUSAL_LM":
        raise UserError(
            f"adapter '{folder}' was trained under a language-model head",
            cure="export it merged and start from that",
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            if isinstance(module, PooledClassifier | SeveralHeads):
                module.trunk = PeftModel.from_pretrained(module.trunk, folder)
                module.load_head(Path(folder))
                return module
            adapted: nn.Module = PeftModel.from_pretrained(module, folder)
    except (OSError, ValueError, RuntimeError, UserWarning, SafetensorError) as error:
        raise UserError(f"adapter '{folder}' does not fit its base: {first_line(error)}") from error
    return adapted


def first_line(error: Exception) -> str:
    """What a library said first."""
    return str(error).strip().split("\n")[0][:300]
