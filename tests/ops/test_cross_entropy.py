"""Linear cross entropy equals torch's own, value and gradient, however it is cut into chunks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from builders import gap
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from luthier.ops import cross_entropy
from luthier.ops.cross_entropy import chunk_rows, head_cross_entropy, linear_cross_entropy

#: Two micro-batches whose learned tokens cost these many nats each (pitfalls: accumulation).
ONE, NINE = 2.51095, 2.04745


def problem(rows: int, vocabulary: int = 23, width: int = 7, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    made = {
        "hidden": torch.randn(rows, width, generator=g, dtype=torch.float64),
        "weight": torch.randn(vocabulary, width, generator=g, dtype=torch.float64),
        "bias": torch.randn(vocabulary, generator=g, dtype=torch.float64),
    }
    for tensor in made.values():
        tensor.requires_grad_()
    labels = torch.randint(vocabulary, (rows,), generator=g)
    row_weights = torch.rand(rows, generator=g) * (torch.rand(rows, generator=g) > 0.3)
    return {**made, "labels": labels, "row_weights": row_weights}


def by_torch(
    p: dict[str, Tensor], *, bias: bool, smoothing: float, softcap: float | None, scale: float
) -> Tensor:
    logits = F.linear(p["hidden"], p["weight"], p["bias"] if bias else None) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = F.cross_entropy(logits, p["labels"], reduction="none", label_smoothing=smoothing)
    return (losses * p["row_weights"]).sum()


def ours(p: dict[str, Tensor], *, bias: bool, **options: Any) -> Tensor:
    return linear_cross_entropy(
        p["hidden"],
        p["weight"],
        p["labels"],
        p["row_weights"],
        bias=p["bias"] if bias else None,
        **options,
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    chunk=st.integers(1, 9),
    bias=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    softcap=st.sampled_from([None, 3.0]),
    scale=st.sampled_from([1.0, 0.3]),
    factor=st.sampled_from([1.0, -0.7]),
)
def test_value_and_gradient_are_torchs(
    rows: int,
    chunk: int,
    bias: bool,
    smoothing: float,
    softcap: float | None,
    scale: float,
    factor: float,
) -> None:
    p = problem(rows)
    options: dict[str, Any] = {"smoothing": smoothing, "softcap": softcap, "scale": scale}
    wanted = [p["hidden"], p["weight"], *([p["bias"]] if bias else [])]
    expected = by_torch(p, bias=bias, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "CHUNK_BYTES", chunk * 23 * 8)
        assert chunk_rows(23, 8) == chunk
        found = ours(p, bias=bias, **options)
    assert gap(found, expected) < 1e-12
    theirs = torch.autograd.grad(expected * factor, wanted)
    for a, b in zip(torch.autograd.grad(found * factor, wanted), theirs, strict=True):
        assert gap(a, b) < 1e-12


def test_smoothing_with_ignored_rows_is_torchs_own() -> None:
    p = problem(12)
    labels = torch.where(p["row_weights"] > 0, p["labels"], -100)
    assert (labels == -100).any()
    p["row_weights"] = (labels != -100).double()
    expected = F.cross_entropy(
        F.linear(p["hidden"], p["weight"]), labels, reduction="sum", label_smoothing=0.1
    )
    assert gap(ours(p, bias=False, smoothing=0.1), expected) < 1e-12


def test_rows_of_weight_zero_leave_no_gradient() -> None:
    p = problem(6)
    p["row_weights"] = torch.tensor([1.0, 0, 0, 1, 0, 1])
    ours(p, bias=True, smoothing=0.1).backward()  # type: ignore[no-untyped-call]
    assert p["hidden"].grad is not None
    assert (p["hidden"].grad.abs().sum(1) > 0).tolist() == [True, False, False, True, False, True]


@pytest.mark.parametrize("through_head", [False, True])
def test_no_rows_are_a_zero_with_a_gradient_of_zero(through_head: bool) -> None:
    p = problem(0)
    if through_head:
        head = nn.Linear(7, 23, dtype=torch.float64)
        loss = head_cross_entropy(head, p["hidden"], p["labels"], p["row_weights"], 23)
        trained = [p["hidden"], *head.parameters()]
    else:
        loss, trained = ours(p, bias=True), [p["hidden"], p["weight"], p["bias"]]
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, trained):
        assert not gradient.any()


def test_a_frozen_head_gets_no_gradient_and_the_trunk_the_same_one() -> None:
    p, frozen = problem(5), problem(5)
    frozen["weight"].requires_grad_(False)
    frozen["bias"].requires_grad_(False)
    ours(p, bias=True).backward()  # type: ignore[no-untyped-call]
    ours(frozen, bias=True).backward()  # type: ignore[no-untyped-call]
    assert frozen["weight"].grad is None
    assert frozen["bias"].grad is None
    assert p["hidden"].grad is not None
    assert frozen["hidden"].grad is not None
    assert torch.equal(p["hidden"].grad, frozen["hidden"].grad)


def test_a_frozen_trunk_gets_no_gradient_and_the_head_its_own() -> None:
    p = problem(5)
    p["hidden"].requires_grad_(False)
    ours(p, bias=False).backward()  # type: ignore[no-untyped-call]
    assert p["hidden"].grad is None
    assert p["weight"].grad is not None


def test_nothing_is_kept_where_nothing_is_learned() -> None:
    with torch.no_grad():
        assert not ours(problem(5), bias=True).requires_grad


def test_bfloat16_is_near_and_its_sum_is_float32() -> None:
    p = problem(40)
    plain = {k: v.detach().float() if v.is_floating_point() else v for k, v in p.items()}
    plain["hidden"].requires_grad_()
    plain["weight"].requires_grad_()
    exact = torch.autograd.grad(
        by_torch(p, bias=False, smoothing=0, softcap=None, scale=1.0), p["weight"]
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss = ours(plain, bias=False)
    assert loss.dtype == torch.float32
    expected = by_torch(p, bias=False, smoothing=0, softcap=None, scale=1.0)
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    loss.backward()  # type: ignore[no-untyped-call]
    assert plain["weight"].grad is not None
    assert plain["weight"].grad.dtype == torch.float32
    assert gap(plain["weight"].grad, exact[0]) < 0.02 * float(exact[0].abs().max())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_a_head_that_is_no_matrix_gives_the_same_sum(
    smoothing: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = problem(5)
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", chunk * 23 * 4)

    def head(h: Tensor) -> Tensor:
        return F.linear(h, p["weight"], p["bias"])

    found = head_cross_entropy(
        head, p["hidden"], p["labels"], p["row_weights"], 23, smoothing=smoothing
    )
    expected = ours(p, bias=True, smoothing=smoothing)
    assert gap(found, expected) < 1e-12
    wanted = [p["hidden"], p["weight"], p["bias"]]
    for a, b in zip(
        torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        assert gap(a, b) < 1e-12


def test_sums_give_the_token_weighted_mean_and_not_the_mean_of_means() -> None:
    # Two tokens in the vocabulary: the loss of label 0 is log(1 + exp(h)).
    weight = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    sums, sizes = [], []
    for nats, count in ((ONE, 1), (NINE, 9)):
        hidden = torch.full((count, 1), math.log(math.expm1(nats)), dtype=torch.float64)
        zeros, ones = torch.zeros(count, dtype=torch.long), torch.ones(count)
        sums.append(linear_cross_entropy(hidden, weight, zeros, ones).item())
        sizes.append(count)
    assert sum(sums) / sum(sizes) == pytest.approx(2.0938, abs=5e-5)
    means = [s / n for s, n in zip(sums, sizes, strict=True)]
    assert sum(means) / 2 == pytest.approx(2.2792, abs=5e-5)


def test_a_row_larger_than_a_chunk_still_fits() -> None:
    assert chunk_rows(10**9) == 1
