"""Losses of preferences against numbers worked out by hand and plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from luthier.ops.preferences import (
    Sides,
    log_odds,
    pair_loss,
    ranking_loss,
    sides,
    watched_figures,
)


def laid(*groups: list[float]) -> Sides:
    values = torch.tensor([v for g in groups for v in g], dtype=torch.float64)
    example = torch.tensor([i for i, g in enumerate(groups) for _ in g])
    place = torch.tensor([k for g in groups for k in range(len(g))])
    return sides(values.requires_grad_(), example, place, len(groups))


def test_answers_lie_by_prompt_whatever_their_number() -> None:
    found = laid([1.0, 2.0], [3.0, 4.0, 5.0])
    assert found.values.tolist() == [[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]]
    assert found.there.tolist() == [[True, True, False], [True, True, True]]
    assert found.others.tolist() == [2.0, 4.5]


def test_a_ranking_of_two_is_bradley_and_terrys() -> None:
    found = ranking_loss(laid([0.3, -0.4], [-1.0, 2.0]))
    expected = [math.log(1 + math.exp(-0.7)), math.log(1 + math.exp(3.0))]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_ranking_is_the_product_of_its_choices() -> None:
    scores = [0.5, -1.0, 2.0, 0.1]
    total = 0.0
    for k in range(len(scores)):
        total -= scores[k] - math.log(sum(math.exp(s) for s in scores[k:]))
    [found, _] = ranking_loss(laid(scores, [1.0, 1.0])).tolist()
    assert found == pytest.approx(total, abs=1e-12)


def test_the_rankings_of_all_orders_are_certain_together() -> None:
    scores = [0.5, -1.0, 2.0]
    orders = [list(order) for order in itertools.permutations(scores)]
    assert ranking_loss(laid(*orders)).neg().exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_prompts_without_answers_cost_nothing_and_have_a_gradient() -> None:
    values = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    found = sides(values, torch.tensor([1, 1]), torch.tensor([0, 1]), 3)
    losses = ranking_loss(found) + found.pairs(lambda m: pair_loss("ipo", m, beta=0.1))
    assert losses[0] == losses[2] == 0
    losses.sum().backward()
    assert torch.isfinite(values.grad).all()
    nothing = sides(values[:0], torch.arange(0), torch.arange(0), 1)
    assert ranking_loss(nothing).tolist() == [0.0]
    assert nothing.pairs(lambda m: pair_loss("ipo", m, beta=0.1)).tolist() == [0.0]


def test_gradients_of_rankings_are_right() -> None:
    def total(values: torch.Tensor) -> torch.Tensor:
        example, place = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 0, 1, 2])
        return ranking_loss(sides(values, example, place, 2)).sum()

    values = torch.tensor([0.3, -0.4, 1.0, 2.0, -0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (values,))


def test_all_pairs_of_a_prompt_count_as_one() -> None:
    found = laid([3.0, 1.0, 2.0], [1.0, 0.0]).pairs(lambda apart: apart**2)
    assert found.tolist() == pytest.approx([(4 + 1 + 1) / 3, 1.0])


@pytest.mark.parametrize(
    ("kind", "smoothing", "expected"),
    [
        # beta 0.5 and a margin of 2: sigmoid(1) = 0.7310586, sigmoid(-1) = 0.2689414.
        ("sigmoid", 0.0, 0.3132617),
        ("sigmoid", 0.1, 0.9 * 0.3132617 + 0.1 * 1.3132617),
        ("robust", 0.1, (0.9 * 0.3132617 - 0.1 * 1.3132617) / 0.8),
        ("hinge", 0.0, 0.0),
        ("ipo", 0.0, 1.0),
    ],
)
def test_pair_losses_by_hand(kind: str, smoothing: float, expected: float) -> None:
    margin = torch.tensor(2.0, dtype=torch.float64)
    found = pair_loss(kind, margin, beta=0.5, smoothing=smoothing)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_robust_is_unbiased() -> None:
    """The mean over labels flipped with probability e is the loss without any flip."""
    margin = torch.linspace(-3, 3, 7, dtype=torch.float64)
    right, wrong = (pair_loss("robust", m, beta=0.7, smoothing=0.2) for m in (margin, -margin))
    clean = pair_loss("sigmoid", margin, beta=0.7)
    assert torch.allclose(0.8 * right + 0.2 * wrong, clean)


def test_log_odds_by_hand_and_of_a_certain_answer() -> None:
    chance = torch.tensor([0.5, 0.2, 0.999], dtype=torch.float64)
    expected = (chance / (1 - chance)).log()
    assert torch.allclose(log_odds(chance.log()), expected)
    sure = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    log_odds(sure).backward()
    assert torch.isfinite(log_odds(sure)).all()


def test_what_is_watched_is_summed_over_prompts() -> None:
    found = watched_figures(laid([2.0, 1.0], [0.0, 0.0], [1.0, 3.0, 2.0]))
    assert [float(f) for f in found] == pytest.approx([3.0, 3.5, 1 / 3, 1 + 0.5 + 1 / 3], abs=1e-6)
    assert not any(f.requires_grad for f in found)
