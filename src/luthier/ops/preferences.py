"""What preferences among answers cost: answers of one prompt side by side, pairs, whole rankings.

``A`` answers of all prompts end to end, ``E`` prompts, ``K`` answers of the prompt with the most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

#: How a difference of two answers becomes a loss; see :func:`pair_loss`.
PairLoss = Literal["sigmoid", "ipo", "hinge", "robust"]
#: What :func:`watched_figures` gives, by name.
WATCHED = ("chosen_reward", "rejected_reward", "reward_margin", "reward_accuracy")


@dataclass(frozen=True)
class Sides:
    """Answers by prompt, the best first.

    Attributes:
        values: ``[E, K]``; zero where a prompt has no such answer.
        there: ``[E, K]`` whether it has.
    """

    values: Tensor
    there: Tensor

    def pairs(self, each: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean of ``each(better - worse)`` over a prompt's pairs: ``[E]``, zero without any."""
        mask = (self.there[:, :, None] & self.there[:, None, :]).triu(1)
        apart = self.values[:, :, None] - self.values[:, None, :]
        # What lies outside the mask is set to 0 before: a NaN's gradient would pass through it.
        found = each(torch.where(mask, apart, 0.0)) * mask
        return found.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)

    @property
    def best(self) -> Tensor:
        """``[E]`` of the best answer."""
        return self.values[:, 0]

    @property
    def others(self) -> Tensor:
        """``[E]`` mean of all other answers."""
        rest = self.there[:, 1:].sum(1).clamp(min=1)
        return self.values[:, 1:].sum(1) / rest

    @property
    def prompts(self) -> Tensor:
        """``[E]`` whether there is any answer."""
        return self.there[:, 0]


def watched_figures(rewards: Sides) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums over prompts: best rewards, mean of the others, mean margin, share of pairs told right.

    A tie is half right.
    """
    known = Sides(rewards.values.detach(), rewards.there)
    return (
        known.best.sum(),
        known.others.sum(),
        known.pairs(lambda apart: apart).sum(),
        known.pairs(lambda apart: (apart > 0).to(apart) + (apart == 0).to(apart) / 2).sum(),
    )


def sides(values: Tensor, example: Tensor, place: Tensor, count: int) -> Sides:
    """Answers end to end to answers by prompt.

    Args:
        values: ``[A]``.
        example: ``[A]`` the prompt of each.
        place: ``[A]`` its rank among the answers of that prompt, from 0.
        count: ``E``.
    """
    width = max(2, int(place.max()) + 1) if len(place) else 2
    at = example * width + place
    laid = values.new_zeros(count * width).index_copy(0, at, values)
    there = torch.zeros(count * width, dtype=torch.bool, device=values.device)
    there[at] = True
    return Sides(laid.view(count, width), there.view(count, width))


def ranking_loss(scores: Sides) -> Tensor:
    """``-sum_k log(exp s_k / sum_{j >= k} exp s_j)`` of each prompt: ``[E]``.

    The likelihood of a whole ranking (Plackett 1975, Luce 1959); of two answers it is that of
    Bradley and Terry 1952, ``-log sigmoid(s_0 - s_1)``.
    """
    width = scores.there.shape[1]
    after = torch.ones(width, width, dtype=torch.bool, device=scores.there.device).triu()
    chosen = after & scores.there[:, None, :]
    # A finite bound in place of minus infinity: rows without any answer would have no gradient.
    least = torch.finfo(scores.values.dtype).min / 4
    rest = torch.where(chosen, scores.values[:, None, :], least).logsumexp(2)
    return ((rest - scores.values) * scores.there).sum(1)


def pair_loss(kind: PairLoss, margin: Tensor, *, beta: float, smoothing: float = 0.0) -> Tensor:
    """What a difference of log-ratios costs, elementwise.

    ``sigmoid``: ``-(1 - e) log sigmoid(beta m) - e log sigmoid(-beta m)`` (Rafailov et al. 2023,
    arXiv 2305.18290; with ``e`` Mitchell 2023's conservative one). ``robust``: the same made
    unbiased where a share ``e`` of the labels is flipped, ``(-(1 - e) log sigmoid(beta m) + e log
    sigmoid(-beta m)) / (1 - 2 e)`` (Chowdhury et al. 2024, arXiv 2403.00409). ``hinge``: ``max(0,
    1 - beta m)`` (Zhao et al. 2023, arXiv 2305.10425). ``ipo``: ``(m - 1 / (2 beta))^2`` (Azar et
    al. 2023, arXiv 2310.12036).
    """
    if kind == "ipo":
        return (margin - 1 / (2 * beta)) ** 2
    if kind == "hinge":
        return F.relu(1 - beta * margin)
    for_it, against = -F.logsigmoid(beta * margin), -F.logsigmoid(-beta * margin)
    if kind == "robust":
        return ((1 - smoothing) * for_it - smoothing * against) / (1 - 2 * smoothing)
    return (1 - smoothing) * for_it + smoothing * against


def log_odds(mean_logprob: Tensor) -> Tensor:
    """``log(p / (1 - p))`` of the geometric mean ``p`` of an answer's token probabilities."""
    # A mean of exactly 0 is an answer without doubt, whose odds are infinite.
    certain = -torch.finfo(mean_logprob.dtype).eps
    bounded = mean_logprob.clamp(max=certain)
    return bounded - torch.log(-torch.expm1(bounded))
