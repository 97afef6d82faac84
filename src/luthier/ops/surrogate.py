"""Policy objectives over rows that were sampled: the clipped surrogate of PPO and its kin.

``R`` rows: tokens, or whole answers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(
    apart: Tensor, advantages: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """``-min(r A, clip(r, 1 - low, 1 + high) A)`` (Schulman et al. 2017, arXiv 1707.06347).

    Args:
        apart: ``[R]`` log-probability now minus that when it was sampled; ``r`` is its exponential.
        advantages: ``[R]``.
        low: how far ``r`` may fall.
        high: how far it may rise; above ``low`` unlikely tokens keep room to become likelier
            (clip-higher of DAPO: Yu et al. 2025, arXiv 2503.14476).

    Returns:
        Losses ``[R]``, and ``[R]`` booleans: where the clip took the gradient away.
    """
    ratio = apart.exp()
    advantages = advantages.to(ratio.dtype)
    bounded = ratio.clamp(1 - low, 1 + high)
    gain, limited = ratio * advantages, bounded * advantages
    return -torch.minimum(gain, limited), (limited < gain).detach()


def clipped_value_loss(
    values: Tensor, old: Tensor, returns: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """``max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2`` of each row (PPO's code).

    Returns:
        Losses ``[R]``, and where the clipped part was the larger.
    """
    returns = returns.to(values.dtype)
    plain = (values - returns) ** 2
    if clip is None:
        return plain / 2, torch.zeros_like(plain, dtype=torch.bool)
    old = old.to(values.dtype)
    near = torch.minimum(torch.maximum(values, old - clip), old + clip)
    bounded = (near - returns) ** 2
    return torch.maximum(plain, bounded) / 2, (bounded > plain).detach()
