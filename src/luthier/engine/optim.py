"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from luthier.core.recipe import TrainingSpec
from luthier.engine import optim_8bit


def make_optimizer(
    spec: TrainingSpec, groups: Sequence[dict[str, Any]], peak: float
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) or SGD with momentum.

    Args:
        spec: the recipe's training part.
        groups: from ``Method.param_groups``: ``params``, ``rate`` and ``decay`` each.
        peak: the learning rate that ``rate`` multiplies.
    """
    made = [
        {
            "params": group["params"],
            "lr": peak * group["rate"],
            "rate": group["rate"],
            "weight_decay": spec.weight_decay if group["decay"] else 0.0,
        }
        for group in groups
    ]
    if spec.optimizer in optim_8bit.KINDS:
        return optim_8bit.make(spec, made, peak)
    if spec.optimizer == "sgd":
        return torch.optim.SGD(made, lr=peak, momentum=spec.betas[0])
    return torch.optim.AdamW(made, lr=peak, betas=spec.betas, fused=True)


def warmup_steps(spec: TrainingSpec, total: int) -> int:
    """Steps of the warm-up: a share of the run below 1, else a number."""
    steps = round(spec.warmup * total) if spec.warmup < 1 else round(spec.warmup)
    return min(steps, total)


def rate_factor(spec: TrainingSpec, step: int, total: int) -> float:
    """The learning rate of step ``step`` (from 0), as a share of the peak.

    A linear warm-up that is never zero, then: ``constant``; ``linear`` or half a ``cosine``
    (Loshchilov & Hutter 2017, arXiv 1608.03983) down to ``min_rate``; ``wsd``: stable, then linear
    over the last fifth (Hu et al. 2024, arXiv 2404.06395).
    """
    warmup = warmup_steps(spec, total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    low = spec.min_rate
    progress = (step - warmup) / max(1, total - warmup)
    if spec.schedule == "linear":
        return low + (1 - low) * (1 - progress)
    if spec.schedule == "cosine":
        return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
    if spec.schedule == "wsd":
        decay = max(1, round(0.2 * (total - warmup)))
        return low + (1 - low) * min(1.0, (total - step) / decay)
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, peak: float, factor: float) -> float:
    """Puts ``peak * factor * rate`` into every group; returns the rate that ``rate`` multiplies."""
    for group in optimizer.param_groups:
        group["lr"] = peak * factor * group["rate"]
    return peak * factor
