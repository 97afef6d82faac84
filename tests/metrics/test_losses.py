"""Perplexity, bits per byte and token accuracy: figures over all tokens together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from luthier.core.records import Origin, Scored
from luthier.metrics import perplexity, token_accuracy


def scored(losses: list[float], size: int | None = None) -> Scored:
    return Scored(Origin("test", 1), losses=np.array(losses, dtype=np.float32), bytes=size)


def value(metric: perplexity.Metric, name: str) -> float:
    return float(metric.reduce(name, metric.rows()[name].sum(axis=0)))


def test_perplexity_weighs_tokens_not_examples() -> None:
    metric = perplexity.Metric()
    metric.update(scored([1.0, 1.0, 1.0], 6))
    metric.update(scored([5.0], 2))
    assert value(metric, "perplexity") == pytest.approx(math.exp(8 / 4))
    assert value(metric, "bits_per_byte") == pytest.approx(8 / math.log(2) / 8)


def test_perplexity_is_that_of_torch_on_all_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 50, generator=generator)
    targets = torch.randint(50, (20,), generator=generator)
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    metric = perplexity.Metric()
    for part in (slice(0, 1), slice(1, 13), slice(13, 20)):
        metric.update(scored(losses[part].tolist(), 4))
    assert value(metric, "perplexity") == pytest.approx(float(losses.mean().exp()), rel=1e-6)


def test_many_small_losses_are_summed_in_double_precision() -> None:
    metric = perplexity.Metric()
    metric.update(scored([0.1] * 3_000_000, 1))
    assert value(metric, "perplexity") == pytest.approx(math.exp(np.float32(0.1)), rel=1e-9)


def test_without_bytes_only_bits_per_byte_is_unknown() -> None:
    metric = perplexity.Metric()
    metric.update(scored([2.0]))
    assert value(metric, "perplexity") == pytest.approx(math.exp(2))
    assert math.isnan(value(metric, "bits_per_byte"))


def test_a_hopeless_model_is_infinitely_perplexed_without_a_warning() -> None:
    metric = perplexity.Metric()
    metric.update(scored([2000.0], 1))
    assert value(metric, "perplexity") == math.inf


def test_token_accuracy_counts_tokens() -> None:
    metric = token_accuracy.Metric()
    for flags in ([True, True, False], [False]):
        metric.update(Scored(Origin("test", 1), correct=np.array(flags)))
    totals = metric.rows()["token_accuracy"].sum(axis=0)
    assert float(metric.reduce("token_accuracy", totals)) == 0.5
