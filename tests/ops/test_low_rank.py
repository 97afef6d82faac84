"""The fused low-rank product: what peft computes, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import gap
from torch import Tensor

from luthier.ops.low_rank import low_rank_linear


def inputs(dtype: torch.dtype = torch.float64, *, bias: bool = True) -> dict[str, Any]:
    """Eight inputs, six outputs, rank three; the matrix frozen."""
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "x": torch.randn(2, 5, 8, dtype=dtype, requires_grad=True),
        "weight": torch.randn(6, 8, dtype=dtype),
        "bias": torch.randn(6, dtype=dtype) if bias else None,
        "down": torch.randn(3, 8, dtype=dtype, requires_grad=True),
        "up": torch.randn(6, 3, dtype=dtype, requires_grad=True),
    }
    return made


def written_out(
    x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
) -> Tensor:
    """In plain operations, as peft has it."""
    return torch.nn.functional.linear(x, weight, bias) + x @ down.T @ up.T * scale


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_written_out_product(bias: bool) -> None:
    given = inputs(bias=bias)
    learned = [given[name] for name in ("x", "down", "up")]
    outs = [f(**given, scale=1.7) for f in (low_rank_linear, written_out)]
    upstream = torch.randn(2, 5, 6, dtype=torch.float64)
    slopes = [torch.autograd.grad(out, learned, upstream) for out in outs]
    assert gap(*outs) < 1e-12
    assert max(gap(a, b) for a, b in zip(*slopes, strict=True)) < 1e-12


def test_its_gradients_are_those_of_finite_differences() -> None:
    given = inputs()

    def of(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        return low_rank_linear(x, given["weight"], given["bias"], down, up, 0.6)

    assert torch.autograd.gradcheck(of, [given[name] for name in ("x", "down", "up")])


@pytest.mark.parametrize("learned", [("x",), ("down",), ("up",), ("down", "up")])
def test_only_what_is_asked_for_gets_a_gradient(learned: tuple[str, ...]) -> None:
    given = inputs()
    for name in ("x", "down", "up"):
        given[name] = given[name].detach().requires_grad_(name in learned)
    low_rank_linear(**given, scale=2.0).sum().backward()
    for name in ("x", "down", "up"):
        assert (given[name].grad is not None) == (name in learned)


def test_law_5_an_update_of_zero_changes_no_bit() -> None:
    given = inputs(torch.float32)
    given["up"] = torch.zeros(6, 3)
    plain = torch.nn.functional.linear(given["x"], given["weight"], given["bias"])
    assert torch.equal(low_rank_linear(**given, scale=2.0), plain)


def test_products_are_autocasts() -> None:
    given = inputs(torch.float32)
    exact = low_rank_linear(**given, scale=2.0)
    with torch.autocast("cpu", torch.bfloat16):
        out = low_rank_linear(**given, scale=2.0)
        out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert 0 < gap(out.float(), exact) < 0.3
    assert {given[name].grad.dtype for name in ("x", "down", "up")} == {torch.float32}


def test_a_matrix_that_learns_is_a_mistake() -> None:
    given = inputs()
    given["weight"].requires_grad_(True)
    with pytest.raises(AssertionError, match="frozen"):
        low_rank_linear(**given, scale=1.0)
