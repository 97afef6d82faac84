"""Seeded order: which examples a step sees, as a pure function of (seed, epoch, step).

Nothing here reads a global generator, so that a run resumed at any step continues exactly.
"""

from __future__ import annotations

import numpy as np

from luthier.core.records import Ints


def generator(*key: int) -> np.random.Generator:
    """A generator that depends on its key alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def epoch_order(count: int, seed: int, epoch: int) -> Ints:
    """The permutation of ``count`` examples in an epoch."""
    return generator(seed, epoch).permutation(count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Steps in one pass; the last may be smaller."""
    return -(-count // batch_size)


def total_steps(count: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Steps of the whole run; at least one."""
    steps = max(1, round(epochs * steps_per_epoch(count, batch_size)))
    return min(steps, max_steps) if max_steps is not None else steps


class Order:
    """Which examples each step sees.

    Args:
        count: examples.
        batch_size: examples a step, over all ranks.
        seed: of the run.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.per_epoch = steps_per_epoch(count, batch_size)
        self._epoch = -1
        self._order: Ints = np.empty(0, dtype=np.int64)

    def epoch(self, step: int) -> int:
        """The epoch (from 0) in which step ``step`` (from 0) lies."""
        return step // self.per_epoch

    def step(self, step: int) -> list[int]:
        """Indices of the examples of step ``step`` (from 0)."""
        epoch, within = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = epoch_order(self.count, self.seed, epoch), epoch
        at = within * self.batch_size
        return [int(i) for i in self._order[at : at + self.batch_size]]
