"""Losses of unequal classes: torch's own where torch has them, the papers' formulas elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from luthier.ops.class_losses import (
    class_losses,
    effective_number,
    inverse_frequency,
    label_weights,
    multi_label_losses,
    positive_weights,
)

SCORES = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
LABELS = torch.tensor([0, 3, 1, 1, 2, 0, 3])
SEVERAL = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float32)
WEIGHTS = torch.tensor([0.25, 2.0, 1.0, 4.0], dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_weighted_mean_is_torchs(smoothing: float, weights: torch.Tensor | None) -> None:
    losses = class_losses(SCORES, LABELS, class_weights=weights, smoothing=smoothing)
    total = 7.0 if weights is None else label_weights(LABELS, weights).sum()
    theirs = torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=smoothing)(SCORES, LABELS)
    assert torch.allclose(losses.sum() / total, theirs, rtol=1e-12)


def test_the_focal_loss_is_the_papers() -> None:
    """Equation 5, with alpha the weights of classes."""
    chosen = SCORES.softmax(1)[torch.arange(7), LABELS]
    expected = -WEIGHTS[LABELS] * (1 - chosen) ** 2 * chosen.log()
    found = class_losses(SCORES, LABELS, class_weights=WEIGHTS, gamma=2)
    assert torch.allclose(found, expected, rtol=1e-10)


def test_a_tiny_gamma_is_nearly_none_smoothed_or_not() -> None:
    for smoothing in (0.0, 0.2):
        near = class_losses(SCORES, LABELS, class_weights=WEIGHTS, gamma=1e-9, smoothing=smoothing)
        plain = class_losses(SCORES, LABELS, class_weights=WEIGHTS, smoothing=smoothing)
        assert torch.allclose(near, plain, rtol=1e-6)


def test_focal_loss_counts_rows_less_that_are_told_well() -> None:
    scores = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0])
    share = class_losses(scores, labels, gamma=2) / class_losses(scores, labels)
    assert share[0] < 0.001 < 0.5 < share[1]


def test_several_labels_are_torchs_and_the_papers() -> None:
    scores = SCORES[:3]
    theirs = torch.nn.BCEWithLogitsLoss(pos_weight=WEIGHTS)(scores, SEVERAL.double())
    ours = multi_label_losses(scores, SEVERAL, positive_weights=WEIGHTS)
    assert torch.allclose(ours.mean(), theirs, rtol=1e-12)
    p, y = scores.sigmoid(), SEVERAL.double()
    expected = -(y * WEIGHTS * (1 - p) ** 1.5 * p.log() + (1 - y) * p**1.5 * (1 - p).log())
    focal = multi_label_losses(scores, SEVERAL, positive_weights=WEIGHTS, gamma=1.5)
    assert torch.allclose(focal, expected.mean(1), rtol=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_score_beyond_doubt_has_a_finite_gradient(gamma: float) -> None:
    """Where ``1 - p`` is 0 in float32, a power below 1 has no derivative of its own."""
    scores = torch.tensor([[90.0, 0.0, -90.0]]).repeat(3, 1).requires_grad_()
    labels = torch.tensor([0, 1, 2])
    class_losses(scores, labels, gamma=gamma, smoothing=0.1).sum().backward()
    several = scores.detach().clone().requires_grad_()
    multi_label_losses(several, F.one_hot(labels, 3), gamma=gamma).sum().backward()
    for leaf in (scores, several):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().max() > 0.1


def test_no_rows_have_a_gradient_of_nothing() -> None:
    scores = torch.zeros(0, 4, requires_grad=True)
    for gamma in (0.0, 2.0):
        class_losses(
            scores, LABELS[:0], class_weights=WEIGHTS.float(), gamma=gamma
        ).sum().backward()
        assert scores.grad is not None
        assert scores.grad.shape == (0, 4)


def test_gradients_are_those_of_finite_differences() -> None:
    scores = SCORES[:4].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: class_losses(s, LABELS[:4], class_weights=WEIGHTS, gamma=1.5, smoothing=0.1),
        scores,
    )


def test_weights_by_inverse_frequency() -> None:
    assert inverse_frequency([30, 10]) == pytest.approx([0.5, 1.5])
    assert inverse_frequency([5, 5, 5]) == pytest.approx([1, 1, 1])
    assert inverse_frequency([30, 0, 10]) == pytest.approx([0.5, 1, 1.5])


def test_weights_by_the_effective_number_of_samples() -> None:
    """Equation 2 of the paper; no weights at beta 0, inverse frequency near 1."""
    beta = 0.99
    numbers = [(1 - beta**n) / (1 - beta) for n in (500, 20)]
    found = effective_number([500, 20], beta)
    assert found[1] / found[0] == pytest.approx(numbers[0] / numbers[1])
    assert sum(found) == pytest.approx(2)
    assert effective_number([500, 20], 0) == [1, 1]
    near = effective_number([500, 20], 1 - 1e-9)
    assert near == pytest.approx(inverse_frequency([500, 20]), rel=1e-4)


def test_weights_of_rows_that_have_a_class_among_several() -> None:
    assert positive_weights([10, 50, 0, 100], 100) == [9, 1, 1, 1]
    assert positive_weights([10, 50], 100, beta=0) == [1, 1]
    assert positive_weights([10], 100, beta=0.9)[0] == pytest.approx((1 - 0.9**90) / (1 - 0.9**10))
