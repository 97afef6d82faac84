"""A base that is put into four bits while it is read, so that it never lies in memory whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from luthier.models.encoder_decoder import auto_class
from luthier.ops import quantized


def options(config: Any) -> dict[str, Any]:
    """What ``from_pretrained`` must be told to quantise each matrix of a decoder as it is read.

    On the CPU, wherever the model goes then: a GPU may round another way.

    Raises:
        RecipeError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    quantized.library()
    with torch.device("meta"):
        empty = auto_class(config).from_config(config)
    head = empty.get_output_embeddings()
    skipped = [name for name, module in empty.named_modules() if module is head]
    skipped += getattr(empty, "_keep_in_fp32_modules", None) or ()
    asked = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=skipped,
    )
    return {"quantization_config": asked, "device_map": {"": "cpu"}}


def packed(module: nn.Module) -> nn.Module:
    """A model in memory, its matrices put into four bits; heads stay as they are."""
    quantized.quantize(module, getattr(module, "head_names", ()))
    return module


def keep_first_half(model: nn.Module) -> None:
    """Leaves of an adapter that was saved with its start what was trained.

    Of rank 2r, ``[A; A0]`` and ``[B, -B0]`` say by how much training changed the matrices in
    full. On the quantised ones the start itself stays: it is what rounding took away.
    """
    for module in model.modules():
        up = getattr(module, "lora_B", None)
        if up is None:
            continue
        for layer in up.values():
            with torch.no_grad():
                layer.weight[:, layer.weight.shape[1] // 2 :] = 0.0
