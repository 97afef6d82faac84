"""What an answer or a token earned beyond what was expected; how far two models are apart.

``R`` tokens of all answers, laid end to end answer by answer; ``S`` answers. Everything here is a
figure that no gradient flows through, but for :func:`kl_loss`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]
Estimator = Literal["k1", "k2", "k3"]
_EPSILON = 1e-4


def group_relative(rewards: Tensor, group: Tensor, scale: Scale = "group") -> Tensor:
    """``(r - mean of its group) / (std + 1e-4)`` (GRPO: Shao et al. 2024, arXiv 2402.03300).

    Args:
        rewards: ``[S]``.
        group: ``[S]`` whole numbers, the prompt of each.
        scale: by the standard deviation of the ``group``, of all (``batch``; Hu et al. 2025,
            arXiv 2501.03262), or ``none`` (Dr. GRPO: Liu et al. 2025, arXiv 2503.20783, since
            dividing favours prompts that are nearly always or never solved).

    A group of equal rewards, or of one answer, has no advantage.
    """
    place, count = _groups(group)
    centred = rewards - _means(rewards, place, count)[place]
    if scale == "none":
        return centred
    if scale == "batch":
        return centred / (rewards.std(correction=1 if len(rewards) > 1 else 0) + _EPSILON)
    spread = torch.zeros(len(count), dtype=rewards.dtype).index_add(0, place, centred**2)
    spread = (spread / (count - 1).clamp(min=1)).sqrt()
    return centred / (spread[place] + _EPSILON)


def leave_one_out(rewards: Tensor, group: Tensor) -> Tensor:
    """``r - mean of the others in its group`` (RLOO: Ahmadian et al. 2024, arXiv 2402.14740).

    An answer without others has no advantage.
    """
    place, count = _groups(group)
    means = _means(rewards, place, count)[place]
    others = count[place]
    return (rewards - means) * others / (others - 1).clamp(min=1)


def _groups(group: Tensor) -> tuple[Tensor, Tensor]:
    """Which group each is in, from 0, and how many are in each."""
    _, place, count = torch.unique(group, return_inverse=True, return_counts=True)
    return place, count


def _means(values: Tensor, place: Tensor, count: Tensor) -> Tensor:
    sums = torch.zeros(len(count), dtype=values.dtype, device=values.device)
    return sums.index_add(0, place, values) / count


def gae(
    rewards: Tensor, values: Tensor, answer: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438): ``[R]``.

    ``A_t = d_t + gamma lam A_{t+1}`` with ``d_t = r_t + gamma V_{t+1} - V_t``; behind an answer's
    last token there is nothing, neither value nor advantage.

    Args:
        rewards: ``[R]``, of each token.
        values: ``[R]``, expected before it.
        answer: ``[R]`` whole numbers; the tokens of an answer stand side by side.
        gamma: discount.
        lam: 1 for what really came (Monte Carlo), 0 for one step and the value after it.
    """
    if not len(rewards):
        return rewards.clone()
    _, lengths = torch.unique_consecutive(answer, return_counts=True)
    ends = lengths.cumsum(0)
    longest = int(lengths.max())
    places = (ends - lengths)[:, None] + torch.arange(longest)
    real = torch.arange(longest) < lengths[:, None]
    places = torch.where(real, places, 0)
    reward, value = (torch.where(real, x[places], 0.0) for x in (rewards, values))
    found = torch.zeros_like(reward)
    after = torch.zeros(len(lengths), dtype=rewards.dtype)
    following = torch.zeros_like(after)
    for step in range(longest - 1, -1, -1):
        delta = reward[:, step] + gamma * following - value[:, step]
        after = torch.where(real[:, step], delta + gamma * lam * after, 0.0)
        following = value[:, step]
        found[:, step] = after
    return found[real]


def whiten(values: Tensor, *, shift: bool = True) -> Tensor:
    """Values with variance 1 and, where shifted, mean 0; every row counts, none is padding."""
    if len(values) < 2:
        return values.clone()
    mean = values.mean()
    white = (values - mean) / (values.var(correction=0) + 1e-8).sqrt()
    return white if shift else white + mean


def per_answer(values: Tensor, answer: Tensor, count: int) -> Tensor:
    """Sums over each answer's tokens: ``[R] -> [count]``."""
    return values.new_zeros(count).index_add(0, answer, values)


def kl_estimate(logprobs: Tensor, reference: Tensor, kind: Estimator) -> Tensor:
    """An estimate of ``KL(policy || reference)`` from the policy's own samples, token by token.

    With ``d = log policy - log reference`` (Schulman 2020, "Approximating KL divergence"):

    - ``k1``: ``d``; unbiased, may be negative
    - ``k2``: ``d^2 / 2``; biased, never negative
    - ``k3``: ``exp(-d) - 1 + d``; unbiased, never negative, of small variance

    As figures, k1 (for rewards, which telescope) and k3 (for logs) are right.
    """
    apart = logprobs - reference
    if kind == "k1":
        return apart
    return apart**2 / 2 if kind == "k2" else torch.expm1(-apart) + apart


def kl_loss(logprobs: Tensor, reference: Tensor, kind: Literal["k2", "k3"]) -> Tensor:
    """The same as a loss, where it is the gradient that counts.

    Of samples of the policy, ``k2`` has the gradient of ``KL(policy || reference)``; ``k3``, which
    GRPO's paper writes, has that of ``KL(reference || policy)``; ``k1`` has none at all (its mean
    gradient is that of a constant), and is no loss.
    """
    return kl_estimate(logprobs, reference, kind)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """``1 - Var(returns - values) / Var(returns)``: 1 for a perfect critic, 0 for a useless one."""
    if len(returns) < 2 or float(returns.var()) == 0.0:
        return 0.0
    return 1.0 - float((returns - values).var() / returns.var())
