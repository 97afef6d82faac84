"""Seeded order: which examples a step sees, as a pure function of (seed, epoch, step).

Nothing here reads a global generator, so that a run resumed at any step continues exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.core.records import Ints

#: The last number of a key of :func:`generator` says what is drawn; steps have 1.
_POOLS = 2


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


@dataclass(frozen=True)
class Pool:
    """Examples of which an epoch draws a set number.

    Attributes:
        members: indices of the examples.
        draws: how many of them an epoch takes; more than there are where some come again.
    """

    members: Ints
    draws: int

    def drawn(self, seed: int, epoch: int, number: int) -> Ints:
        """What an epoch takes, as the pool of this ``number``.

        Permutations of the members stand in a row without end, and each epoch takes the next
        ``draws`` of it. So no member is seen twice before every other one is seen, within an
        epoch and from one to the next: after ``e`` epochs each was drawn ``e * draws / members``
        times, rounded down or up.
        """
        size = len(self.members)
        begin, end = epoch * self.draws, (epoch + 1) * self.draws
        rounds = range(begin // size, -(-end // size))
        order = [generator(seed, number, r, _POOLS).permutation(size) for r in rounds]
        first = rounds.start * size
        taken: Ints = self.members[np.concatenate(order)[begin - first : end - first]]
        return taken


class Order:
    """Which examples each step sees.

    Args:
        count: examples.
        batch_size: examples a step, over all ranks.
        seed: of the run.
        pools: what an epoch draws, where that is not every example once.
    """

    def __init__(self, count: int, batch_size: int, seed: int, pools: Sequence[Pool] = ()) -> None:
        assert not pools or all(len(pool.members) and pool.draws for pool in pools)
        self.pools, self.batch_size, self.seed = tuple(pools), batch_size, seed
        #: Examples that an epoch takes.
        self.count = sum(pool.draws for pool in pools) if pools else count
        self.per_epoch = steps_per_epoch(self.count, batch_size)
        self._epoch = -1
        self._order: Ints = np.empty(0, dtype=np.int64)

    def epoch(self, step: int) -> int:
        """The epoch (from 0) in which step ``step`` (from 0) lies."""
        return step // self.per_epoch

    def step(self, step: int) -> list[int]:
        """Indices of the examples of step ``step`` (from 0)."""
        epoch, within = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._drawn(epoch), epoch
        at = within * self.batch_size
        return [int(i) for i in self._order[at : at + self.batch_size]]

    def _drawn(self, epoch: int) -> Ints:
        order = epoch_order(self.count, self.seed, epoch)
        if not self.pools:
            return order
        each = [pool.drawn(self.seed, epoch, n) for n, pool in enumerate(self.pools)]
        drawn: Ints = np.concatenate(each)[order]
        return drawn
