"""Divergences from a teacher equal their formulas, value and gradient, in any chunks."""

from __future__ import annotations

from itertools import pairwise

import builders
import pytest
import torch
from builders import gap
from torch import Tensor, nn

from luthier.ops import cross_entropy
from luthier.ops.divergence import Kind, divergence, head_divergence, top_classes

VOCABULARY, TEMPERATURE = 19, 1.7
KINDS: tuple[Kind, ...] = ("forward_kl", "reverse_kl", "jensen_shannon")


def plain(kind: Kind, z_teacher: Tensor, z_student: Tensor, beta: float = 0.5) -> Tensor:
    """The formulas with nothing merged, row by row."""
    p, q = (z / TEMPERATURE for z in (z_teacher, z_student))
    p, q = p.softmax(-1), q.softmax(-1)
    m = beta * p + (1 - beta) * q
    kl = {
        "forward_kl": (p * (p / q).log()),
        "reverse_kl": (q * (q / p).log()),
        "jensen_shannon": beta * p * (p / m).log() + (1 - beta) * q * (q / m).log(),
    }
    return kl[kind].sum(-1)


def parts(rows: int = 7) -> tuple[nn.Linear, Tensor, nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    teacher = nn.Linear(6, VOCABULARY, dtype=torch.float64)
    student = nn.Linear(5, VOCABULARY, dtype=torch.float64)
    states = 3 * torch.randn(rows, 6, dtype=torch.float64)
    hidden = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    return teacher, states, student, hidden, torch.rand(rows, dtype=torch.float64)


def kept(count: int, rows: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    teacher, states, *_ = parts(rows)
    return top_classes(teacher, states, count, TEMPERATURE, VOCABULARY)


def found(kind: Kind, count: int, weights: Tensor, beta: float = 0.5) -> Tensor:
    _, _, student, hidden, _ = parts()
    return head_divergence(
        student, hidden, kept(count), weights, VOCABULARY,
        kind=kind, temperature=TEMPERATURE, beta=beta,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("count", [VOCABULARY, 10 * VOCABULARY])
def test_the_whole_vocabulary_is_the_exact_divergence(
    kind: Kind, chunk: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", chunk * VOCABULARY * 4)
    teacher, states, student, hidden, weights = parts()
    made = head_divergence(
        student, hidden, kept(count), weights, VOCABULARY,
        kind=kind, temperature=TEMPERATURE, beta=0.3,
    )  # fmt: skip
    made.backward()  # type: ignore[no-untyped-call]
    ours = {"hidden": hidden.grad.clone(), **builders.gradients(student)}
    hidden.grad = None
    student.zero_grad()
    expected = (plain(kind, teacher(states).detach(), student(hidden), 0.3) * weights).sum()
    expected.backward()  # type: ignore[no-untyped-call]
    assert gap(made, expected) < 1e-12
    assert gap(ours, {"hidden": hidden.grad, **builders.gradients(student)}) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_merged_classes_never_look_further_apart_and_more_of_them_tell_more(kind: Kind) -> None:
    weights = torch.ones(7, dtype=torch.float64)
    values = [found(kind, k, weights).item() for k in range(1, VOCABULARY + 1)]
    assert all(b > a - 1e-12 for a, b in pairwise(values))
    assert 0 < values[0] < values[-1]
    assert values[-2] == pytest.approx(values[-1], rel=1e-9), "one token left is one class"


def test_the_rest_is_the_mass_that_is_not_kept() -> None:
    teacher, states, *_ = parts()
    p = (teacher(states) / TEMPERATURE).softmax(-1)
    tokens, logprobs, rest = kept(4)
    assert not logprobs.requires_grad
    assert gap(logprobs.exp(), p.gather(1, tokens)) < 1e-12
    assert gap(logprobs.exp().sum(1) + rest.exp(), torch.ones(7)) < 1e-12
    assert torch.isinf(kept(VOCABULARY)[2]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(kind: Kind) -> None:
    teacher, states, *_ = parts()
    states.requires_grad_()
    made = head_divergence(
        teacher, states, kept(3), torch.ones(7), VOCABULARY, kind=kind, temperature=TEMPERATURE
    )
    made.backward()  # type: ignore[no-untyped-call]
    assert abs(made.item()) < 1e-12
    assert float(states.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [3, VOCABULARY])
def test_no_rows_are_zero_with_a_gradient_of_zero(kind: Kind, count: int) -> None:
    _, _, student, hidden, weights = parts()
    made = head_divergence(
        student, hidden[:0], kept(count, 0), weights[:0], VOCABULARY,
        kind=kind, temperature=TEMPERATURE,
    )  # fmt: skip
    made.backward()  # type: ignore[no-untyped-call]
    assert made.item() == 0
    assert student.weight.grad is not None
    assert not student.weight.grad.any()


def test_a_student_with_a_wider_vocabulary_is_held_to_the_classes_of_the_teacher() -> None:
    _, _, _, hidden, weights = parts()
    wider = nn.Linear(5, VOCABULARY + 3, dtype=torch.float64)
    made = head_divergence(
        wider, hidden, kept(VOCABULARY), weights, VOCABULARY + 3,
        kind="reverse_kl", temperature=TEMPERATURE,
    )  # fmt: skip
    made.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(made)
    assert torch.isfinite(wider.weight.grad).all()


def test_the_two_directions_differ_and_the_third_is_symmetric() -> None:
    torch.manual_seed(1)
    p, q = (torch.randn(5, 9, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    assert gap(divergence(p, q, "forward_kl"), divergence(q, p, "reverse_kl")) < 1e-12
    assert gap(divergence(p, q, "forward_kl"), divergence(q, p, "forward_kl")) > 1e-3
    assert gap(divergence(p, q, "jensen_shannon"), divergence(q, p, "jensen_shannon")) < 1e-12
