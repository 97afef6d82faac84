"""AdamW with its moments in 8 bits (Dettmers et al. 2021, arXiv 2110.02861), by bitsandbytes.

Each block of 256 numbers of a moment has a factor of its own; matrices of fewer than 4,096 numbers
keep 32 bits. Paged (Dettmers et al. 2023, arXiv 2305.14314), they may be moved to main memory by
the driver while the GPU has none left.
"""

from __future__ import annotations

from typing import Any

import torch

from luthier.core.errors import RecipeError
from luthier.core.recipe import TrainingSpec
from luthier.ops.quantized import library

#: The recipe's names, and whether the moments are paged.
KINDS = {"adamw_8bit": False, "adamw_8bit_paged": True}


def check(name: str, device: torch.device) -> None:
    """Whether this optimizer can be had on this device.

    Raises:
        RecipeError: it cannot, or bitsandbytes is not installed.
    """
    if name not in KINDS:
        return
    if device.type != "cuda":
        raise RecipeError(
            f"training.optimizer '{name}' keeps its moments in 8 bits to save a GPU's memory, and "
            f"this run is on {device.type}, where main memory holds them as they are",
            cure="training.optimizer: adamw",
            code="pairing",
        )
    library()


def make(spec: TrainingSpec, groups: list[dict[str, Any]], peak: float) -> torch.optim.Optimizer:
    """The optimizer, its groups as :func:`luthier.engine.optim.make_optimizer` has them."""
    made: torch.optim.Optimizer = library().optim.AdamW(
        groups,
        lr=peak,
        betas=spec.betas,
        weight_decay=0.0,
        optim_bits=8,
        is_paged=KINDS[spec.optimizer],
    )
    return made
