"""Matrices in four bits: NF4 as the paper has it, products with exactly what they stand for."""

from __future__ import annotations

import copy
import sys
from typing import Any

import builders
import pytest
import torch
from builders import gap
from torch import nn

from luthier.core.errors import RecipeError
from luthier.ops import quantized
from luthier.ops.low_rank import low_rank_linear


def layer(inputs: int = 128, outputs: int = 64, *, bias: bool = True) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, outputs, bias=bias))
    quantized.quantize(model)
    return model[0]


def test_a_matrix_becomes_one_of_sixteen_values_a_block() -> None:
    """NF4's levels are symmetric in number, not in place: the paper's table, to four figures."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 4096))
    with torch.no_grad():
        plain[0].weight.normal_(0, 0.4)
        plain[0].weight[:, 0] = 1.0  # the largest of every block
        plain[0].weight.clamp_(-1, 1)
    quantized.quantize(plain)
    levels = quantized.matrix_of(plain[0]).unique()
    found = {round(float(v / levels.max()), 4) for v in levels}
    paper = [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0]
    paper += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1]
    assert found == set(paper)


def test_it_takes_a_little_more_than_half_a_byte_a_weight() -> None:
    made = layer(1024, 1024, bias=False)
    assert quantized.numel(made.weight) == 1024 * 1024
    assert 4.12 < 8 * quantized.nbytes(made.weight) / 1024**2 < 4.14
    assert quantized.nbytes(nn.Parameter(torch.zeros(10))) == 40


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_products_and_gradients_are_those_of_the_unpacked_matrix(
    bias: bool, training: bool
) -> None:
    """In evaluation too: the library's own layer would compute in bfloat16 on CPUs like this."""
    made = layer(bias=bias).train(training)
    matrix = quantized.matrix_of(made)
    x = torch.randn(2, 5, 128, requires_grad=True)
    out, expected = made(x), nn.functional.linear(x, matrix, made.bias)
    assert torch.equal(out, expected)
    upstream = torch.randn_like(out)
    slopes = [torch.autograd.grad(each, x, upstream)[0] for each in (out, expected)]
    assert gap(*slopes) < 1e-6
    with torch.no_grad():
        assert torch.equal(made(x.detach()), expected)
    assert torch.equal(quantized.matrix_of(made), matrix)


@pytest.mark.parametrize("shape", [(64, 96), (64, 32), (48, 33), (3, 5), (7, 192)])
def test_any_shape_is_unpacked_right(shape: tuple[int, int]) -> None:
    """The library's own function is wrong on CPUs where rows are no whole number of blocks."""
    made = layer(shape[1], shape[0])
    torch.manual_seed(0)
    plain = nn.Linear(shape[1], shape[0]).weight.detach()
    # Half the widest step between two levels, of the largest weight; and the factors' own.
    assert gap(quantized.matrix_of(made), plain) < 0.17 * float(plain.abs().max())


def test_the_low_rank_product_unpacks_twice_and_keeps_nothing() -> None:
    made = layer()
    x, down, up = torch.randn(7, 128), torch.randn(4, 128), torch.randn(64, 4)
    learned = [t.requires_grad_(True) for t in (x, down, up)]
    calls: list[torch.dtype] = []

    def unpack(dtype: torch.dtype) -> torch.Tensor:
        calls.append(dtype)
        return quantized.dequantized(made, dtype)

    out = low_rank_linear(x, unpack, made.bias, down, up, 0.5)
    plain = low_rank_linear(x, quantized.matrix_of(made), made.bias, down, up, 0.5)
    assert torch.equal(out, plain)
    upstream = torch.randn_like(out)
    for mine, theirs in zip(
        torch.autograd.grad(out, learned, upstream),
        torch.autograd.grad(plain, learned, upstream),
        strict=True,
    ):
        assert torch.equal(mine, theirs)
    assert calls == [torch.float32] * 2


def test_products_are_autocasts() -> None:
    made, x = layer(), torch.randn(3, 128, requires_grad=True)
    exact = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = made(x)
    assert out.dtype == torch.bfloat16
    assert 0 < gap(out.float(), exact) < 0.1
    out.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_matrix_but_the_head_is_quantised(architecture: str) -> None:
    model = builders.tiny(architecture)
    whole = {n: quantized.matrix_of(model.get_submodule(n)) for n in quantized.targets(model)}
    count = quantized.quantize(model)
    assert count == len(whole) >= 8
    assert not quantized.targets(model)
    assert type(model.get_output_embeddings()) is nn.Linear
    assert quantized.holds_quantized(model)
    for name, matrix in whole.items():
        packed = quantized.matrix_of(model.get_submodule(name))
        assert packed.shape == matrix.shape, "GPT-2's are stored transposed"
        assert 0 < gap(packed, matrix) < 0.17 * float(matrix.abs().max())
    assert quantized.quantize(model) == 0, "what is packed stays as it is"


def test_a_copy_computes_with_its_own_matrix() -> None:
    made = layer()
    twin = copy.deepcopy(made)
    x = torch.randn(2, 128)
    assert torch.equal(twin(x), made(x))
    twin.weight.data.zero_()
    assert not torch.equal(twin(x), made(x))


def test_a_state_that_a_move_left_behind_is_found() -> None:
    made, x = layer(), torch.randn(2, 128)
    expected = made(x)
    made.weight = nn.Parameter(torch.Tensor(made.weight.data), requires_grad=False)
    assert torch.equal(made(x), expected)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    quantized.library.cache_clear()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(RecipeError, match="not installed") as caught:
        quantized.library()
    assert "luthier[qlora]" in caught.value.faults[0].cure
    quantized.library.cache_clear()


def test_law_10_an_import_fetches_no_machine_code() -> None:
    """On CPUs that know bfloat16 the library would load a kernel through the package `kernels`."""
    import subprocess

    script = (
        "import sys, types\n"
        "trap = types.ModuleType('kernels')\n"
        "def get_kernel(*a, **k): raise SystemExit('the hub was asked')\n"
        "trap.get_kernel = get_kernel\n"
        "sys.modules['kernels'] = trap\n"
        "from luthier.ops import quantized\n"
        "quantized.peft(); quantized.library()\n"
        "assert sys.modules['kernels'] is trap\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "kernels" not in done.stderr
