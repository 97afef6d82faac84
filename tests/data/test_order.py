"""The order of examples depends on (seed, epoch) alone, never on a global generator."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.data.order import Order, epoch_order, generator, steps_per_epoch, total_steps


def test_it_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert epoch_order(10, seed=0, epoch=0).tolist() == GOLDEN
    assert generator(0, 1, 2).integers(1000, size=3).tolist() == DRAWS


def test_no_global_generator_is_read_or_moved() -> None:
    first = epoch_order(50, 3, 1)
    np.random.seed(1)
    torch.manual_seed(1)
    random.seed(1)
    states = (np.random.get_state()[1].tolist(), torch.get_rng_state(), random.getstate())  # type: ignore[index, union-attr]
    assert epoch_order(50, 3, 1).tolist() == first.tolist()
    assert np.random.get_state()[1].tolist() == states[0]  # type: ignore[index, union-attr]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]


def test_seeds_and_epochs_differ() -> None:
    orders = {tuple(epoch_order(30, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_every_epoch_shows_every_example_once(count: int, batch_size: int, epoch: int) -> None:
    order = Order(count, batch_size, seed=5)
    first = epoch * order.per_epoch
    steps = [order.step(first + i) for i in range(order.per_epoch)]
    assert sorted(i for step in steps for i in step) == list(range(count))
    assert [len(step) for step in steps[:-1]] == [batch_size] * (order.per_epoch - 1)
    assert len(steps[-1]) == count - batch_size * (order.per_epoch - 1)
    assert {order.epoch(first + i) for i in range(order.per_epoch)} == {epoch}


def test_any_step_can_be_asked_for_first() -> None:
    whole = Order(23, 4, seed=1)
    steps = [whole.step(i) for i in range(30)]
    for number in (17, 3, 29, 0):
        assert Order(23, 4, seed=1).step(number) == steps[number]
        assert whole.step(number) == steps[number]


@pytest.mark.parametrize(
    ("count", "batch", "epochs", "limit", "steps"),
    [(10, 4, 1, None, 3), (10, 4, 2.0, None, 6), (10, 4, 0.1, None, 1), (10, 4, 3, 5, 5),
     (1, 16, 1, None, 1), (100, 10, 1.5, None, 15)],
)  # fmt: skip
def test_steps_of_a_run(
    count: int, batch: int, epochs: float, limit: int | None, steps: int
) -> None:
    assert total_steps(count, batch, epochs, limit) == steps
    assert steps_per_epoch(10, 4) == 3


#: Resumed runs of older versions depend on these.
GOLDEN = [8, 0, 3, 7, 6, 4, 1, 5, 2, 9]
DRAWS = [836, 790, 884]
