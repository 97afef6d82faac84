"""Losses of classes that are not equally frequent: class weights, focal loss, label smoothing.

``R`` rows, ``K`` classes; a row's loss comes without any mean, so that whoever trains sums the
losses and divides once by the sum of the rows' weights (:func:`label_weights`), over a whole step.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

import torch
import torch.nn.functional as F
from torch import Tensor


def class_losses(
    scores: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
) -> Tensor:
    """``-sum_k q_k w_k (1 - p_k)^gamma log p_k`` of each row, with ``p = softmax(scores)``.

    ``q = (1 - smoothing) onehot + smoothing / K`` (Szegedy et al. 2016, arXiv 1512.00567); the
    factor with ``gamma`` is the focal loss (Lin et al. 2017, arXiv 1708.02002), whose alpha is
    ``class_weights``. With ``gamma`` 0 this is torch's cross entropy with its ``weight`` and
    ``label_smoothing``, whose mean divides by the sum of :func:`label_weights`; ours does with any
    ``gamma``, where the paper divides by the number of rows of the foreground.

    Args:
        scores: ``[R, K]``; zero rows give zero rows, with a gradient.
        labels: ``[R]`` class numbers.
        class_weights: ``[K]``; 1 each if ``None``.
        gamma: how much less rows count that are told well already.
        smoothing: ``e`` of the smoothed target.

    Returns:
        ``[R]`` in nats.
    """
    if gamma == 0:
        return F.cross_entropy(
            scores, labels, class_weights, reduction="none", label_smoothing=smoothing
        )
    logs = scores.log_softmax(1)
    terms = -(_others(logs) ** gamma) * logs
    if class_weights is not None:
        terms = terms * class_weights
    chosen = terms.gather(1, labels[:, None])[:, 0]
    return (1 - smoothing) * chosen + smoothing * terms.mean(1) if smoothing else chosen


def label_weights(labels: Tensor, class_weights: Tensor) -> Tensor:
    """What each of ``[R]`` rows counts in a weighted mean: the weight of its own class."""
    return class_weights[labels]


def multi_label_losses(
    scores: Tensor,
    labels: Tensor,
    *,
    positive_weights: Tensor | None = None,
    gamma: float = 0.0,
) -> Tensor:
    """``-sum_k w_k y_k (1 - p_k)^gamma log p_k + (1 - y_k) p_k^gamma log(1 - p_k)``, over K.

    ``p = sigmoid(scores)``. With ``gamma`` 0 this is torch's binary cross entropy with logits and
    its ``pos_weight``, a mean over the classes of each row.

    Args:
        scores: ``[R, K]``.
        labels: ``[R, K]``, 1 where a row has the class.
        positive_weights: ``[K]``; what a row that has the class counts against one that has not.
        gamma: as in :func:`class_losses`.

    Returns:
        ``[R]`` in nats.
    """
    labels = labels.to(scores.dtype)
    if gamma == 0:
        return F.binary_cross_entropy_with_logits(
            scores, labels, reduction="none", pos_weight=positive_weights
        ).mean(1)
    has, lacks = F.logsigmoid(scores), F.logsigmoid(-scores)
    positive = -(_others(has) ** gamma) * has
    if positive_weights is not None:
        positive = positive * positive_weights
    negative = -(_others(lacks) ** gamma) * lacks
    return (labels * positive + (1 - labels) * negative).mean(1)


def inverse_frequency(counts: Sequence[int]) -> list[float]:
    """Weights ``1 / n_k``, scaled to a mean of 1; a class without a row has 1."""
    return _scaled([float(count) for count in counts])


def effective_number(counts: Sequence[int], beta: float) -> list[float]:
    """Weights ``1 / E(n_k)``, scaled to a mean of 1, of the effective numbers of samples.

    ``E(n) = (1 - beta^n) / (1 - beta)`` (Cui et al. 2019, arXiv 1901.05555): 1 for ``beta`` 0,
    which weighs all classes alike, towards ``n`` for ``beta`` near 1.
    """
    return _scaled([_effective(count, beta) for count in counts])


def positive_weights(counts: Sequence[int], rows: int, beta: float | None = None) -> list[float]:
    """Weights ``E(rows - n_k) / E(n_k)`` of the rows that have a class, of several labels each.

    Without ``beta`` ``E(n) = n``: the rows with the class weigh together what the others do.

    Args:
        counts: rows that have each class.
        rows: all of them.
        beta: of :func:`effective_number`.
    """

    def number(count: int) -> float:
        return float(count) if beta is None else _effective(count, beta)

    return [number(rows - n) / number(n) if 0 < n < rows else 1.0 for n in counts]


def _others(logs: Tensor) -> Tensor:
    """``1 - exp(logs)``, kept from 0, where a power below 1 has no gradient."""
    return (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny)


def _effective(count: int, beta: float) -> float:
    return float(1 - beta**count) / (1 - beta)


def _scaled(numbers: Sequence[float]) -> list[float]:
    """Inverses of a mean of 1, over those that are not 0."""
    weights = [1 / number for number in numbers if number]
    mean = fsum(weights) / max(1, len(weights))
    return [1 / (number * mean) if number else 1.0 for number in numbers]
