"""Log-probabilities of tokens equal log-softmax, value and gradient, in any chunks."""

from __future__ import annotations

import pytest
import torch
from builders import gap
from torch import nn

from luthier.ops import cross_entropy, logprobs
from luthier.ops.logprobs import token_logprobs

VOCABULARY = 19


def parts(rows: int = 7) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(5, VOCABULARY, dtype=torch.float64)
    hidden = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    return head, hidden, torch.randint(VOCABULARY, (rows,))


@pytest.mark.parametrize("kept", [0, 2**20])
@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_parity_with_log_softmax(chunk: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", chunk * VOCABULARY * 4)
    monkeypatch.setattr(logprobs, "KEPT_BYTES", kept)
    head, hidden, labels = parts()
    found, correct = token_logprobs(head, hidden, labels, VOCABULARY)
    logits = head(hidden)
    expected = logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]
    assert gap(found, expected) < 1e-12
    assert torch.equal(correct, logits.argmax(-1) == labels)
    weights = torch.randn(len(labels), dtype=torch.float64)
    wanted = [hidden, *head.parameters()]
    ours = torch.autograd.grad((found * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    assert max(gap(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-12


@pytest.mark.parametrize(("kept", "runs"), [(0, 2), (2**20, 1)])
def test_few_logits_are_not_made_again(
    kept: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "KEPT_BYTES", kept)
    head, hidden, labels = parts()
    calls = []
    head.register_forward_hook(lambda *_: calls.append(1))
    token_logprobs(head, hidden, labels, VOCABULARY)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert len(calls) == runs


def test_without_gradients_the_same_figures() -> None:
    head, hidden, labels = parts()
    with torch.no_grad():
        found, correct = token_logprobs(head, hidden, labels, VOCABULARY)
    expected, right = token_logprobs(head, hidden, labels, VOCABULARY)
    assert torch.equal(found, expected)
    assert torch.equal(correct, right)
    assert not found.requires_grad


def test_a_frozen_trunk_below_a_trained_head() -> None:
    head, hidden, labels = parts()
    found, _ = token_logprobs(head, hidden.detach(), labels, VOCABULARY)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert head.weight.grad is not None


def test_no_rows_give_nothing_and_gradients_of_zero() -> None:
    head, hidden, labels = parts(0)
    found, correct = token_logprobs(head, hidden, labels, VOCABULARY)
    assert found.shape == correct.shape == (0,)
    assert correct.dtype == torch.bool
    # Every parameter takes part: DDP waits for the gradient of each.
    for gradient in torch.autograd.grad(found.sum(), [hidden, *head.parameters()]):
        assert not gradient.any()


def test_half_precision_logits_are_summed_in_float32() -> None:
    head, hidden, labels = parts()
    found, _ = token_logprobs(head.bfloat16(), hidden.bfloat16(), labels, VOCABULARY)
    assert found.dtype == torch.float32
