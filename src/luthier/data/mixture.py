"""How many examples of each source, or of each class, an epoch draws.

A source has a mass: its weight times the examples that it counts for, to the power of one over the
temperature (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2: examples-proportional mixing with
a limit and a temperature). Its share of an epoch is its share of all mass, or the share that the
recipe gives it. The drawing itself is :class:`luthier.data.order.Pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np

from luthier.core.contracts import Objective
from luthier.core.contracts_data import Classed
from luthier.core.errors import DataError, RecipeError
from luthier.core.recipe import DataSpec
from luthier.core.records import Example, Ints
from luthier.data.order import Pool
from luthier.data.parts import Part
from luthier.data.store import ExampleStore

#: How long an epoch is, by what it is balanced with.
_BALANCED = {"oversample": "all_exhausted", "undersample": "first_exhausted"}


@dataclass(frozen=True)
class Drawing:
    """What an epoch draws.

    Attributes:
        noun: what the groups are: ``source`` or ``class``.
        names: of the groups.
        rows: examples that each has.
        draws: examples of each that an epoch takes.
    """

    noun: str
    names: tuple[str, ...]
    rows: tuple[int, ...]
    draws: tuple[int, ...]

    @property
    def length(self) -> int:
        """Examples of an epoch."""
        return sum(self.draws)

    @property
    def plain(self) -> bool:
        """Whether an epoch takes every example once."""
        return self.rows == self.draws

    def lines(self) -> Iterator[str]:
        """What an epoch is, in words."""
        yield f"an epoch: {self.length:,} examples, drawn by {self.noun} from {sum(self.rows):,}"
        for name, rows, draws in zip(self.names, self.rows, self.draws, strict=True):
            if not rows:
                yield f"  {name}: no example, none is drawn"
                continue
            often = "once" if draws == rows else f"{draws / rows:.3g} times"
            yield (
                f"  {name}: {rows:,} examples, {draws:,} drawn, {draws / self.length:.1%} of the "
                f"epoch, each seen {often}"
            )

    def pools(self, groups: Ints) -> tuple[Pool, ...]:
        """The pools of examples whose group's number is given; none where all come once."""
        if self.plain:
            return ()
        return tuple(
            Pool(np.flatnonzero(groups == number).astype(np.int64), draws)
            for number, draws in enumerate(self.draws)
            if draws
        )

    def figures(self) -> dict[str, object]:
        """For ``environment.json``."""
        each = zip(self.names, self.rows, self.draws, strict=True)
        return {
            "by": self.noun,
            "length": self.length,
            "groups": {name: {"examples": rows, "drawn": drawn} for name, rows, drawn in each},
        }


def drawing(
    spec: DataSpec, objective: Objective, part: Part, examples: ExampleStore
) -> tuple[Drawing, tuple[Pool, ...]] | None:
    """What an epoch of training examples draws, where that is more than every one once.

    Raises:
        RecipeError: no classes to balance.
        DataError: a source of the mixture without an example.
    """
    if spec.balance is not None:
        head, column = balanced(objective)
        groups = np.asarray(examples.arrays[f"{head}.{column}"]).astype(np.int64)
    elif part.mixed:
        numbers = np.array([part.entry(file) for file in examples.sources], dtype=np.int64)
        groups = numbers[examples.arrays["origin_source"]]
    else:
        return None
    found = planned(spec, objective, np.bincount(groups).tolist())
    return found, found.pools(groups)


def grouping(spec: DataSpec, objective: Objective, part: Part) -> Callable[[Example], int] | None:
    """The number of an example's group, where an epoch is drawn by groups.

    Raises:
        RecipeError: no classes to balance.
    """
    if spec.balance is not None:
        head, column = balanced(objective)
        return lambda example: int(example.targets[head][column][0])
    if part.mixed:
        return lambda example: part.entry(example.origin.source)
    return None


def planned(spec: DataSpec, objective: Objective, counts: Sequence[int]) -> Drawing:
    """What an epoch draws of groups of so many examples; those at the end may be missing.

    Raises:
        RecipeError: no classes to balance.
        DataError: a source of the mixture without an example.
    """
    if spec.balance is not None:
        balanced(objective)
        assert isinstance(objective, Classed)
        names = objective.class_names
        return by_class(spec.balance, names, _filled(counts, len(names)))
    assert spec.mixture, "no mixture"
    return by_source(spec, _filled(counts, len(spec.mixture)))


def balanced(objective: Objective) -> tuple[str, str]:
    """The table and column with the one class of each example.

    Raises:
        RecipeError: examples have no class, or several.
    """
    column = objective.class_column if isinstance(objective, Classed) else None
    if column is None:
        raise RecipeError(
            "data.balance draws the same number of examples of each class, and these have no "
            "class or several",
            cure="leave data.balance out; rare ones of several labels are weighed by "
            "objective.class_weights",
            code="pairing",
        )
    return column


def by_source(spec: DataSpec, counts: Sequence[int]) -> Drawing:
    """What an epoch draws of each source of ``data.mixture``.

    Args:
        spec: with a mixture.
        counts: examples of each entry, in order.

    Raises:
        DataError: an entry without an example.
    """
    assert spec.mixture, "no mixture"
    names = tuple(entry.name(number) for number, entry in enumerate(spec.mixture))
    for number, (name, count) in enumerate(zip(names, counts, strict=True)):
        if not count:
            raise DataError(
                f"data.mixture.{number}: no example of {name} is left to draw from",
                cure="take it out of the mixture, or hold out and drop less of it",
                code="no-rows",
            )
    limits = [min(c, e.cap or c) for c, e in zip(counts, spec.mixture, strict=True)]
    power = 1 / spec.temperature
    masses = [e.weight * float(n) ** power for n, e in zip(limits, spec.mixture, strict=True)]
    masses = _with_shares(masses, [entry.share for entry in spec.mixture])
    return Drawing("source", names, tuple(counts), draws(masses, limits, spec.epoch_length))


def by_class(balance: str, names: Sequence[str], counts: Sequence[int]) -> Drawing:
    """What an epoch draws of each class: of every one the same number.

    Args:
        balance: ``oversample`` (as many as the largest has) or ``undersample`` (the smallest).
        names: of the classes.
        counts: examples of each; a class without any is left out.
    """
    present = [count for count in counts if count]
    found = iter(draws([1.0] * len(present), present, _BALANCED[balance]))
    return Drawing(
        "class", tuple(names), tuple(counts), tuple(next(found) if c else 0 for c in counts)
    )


def draws(masses: Sequence[float], counts: Sequence[int], length: int | str) -> tuple[int, ...]:
    """Whole numbers that are to each other as the masses are, and at least 1.

    Args:
        masses: positive.
        counts: examples of each group.
        length: their sum: a number, or ``total`` for that of ``counts``. With ``all_exhausted``
            the least group for which every group is seen whole decides it, with
            ``first_exhausted`` the largest for which nothing comes twice.

    >>> draws([2.0, 1.0], [10, 100], "all_exhausted")
    (200, 100)
    >>> draws([20.0, 100.0], [10, 100], "all_exhausted")
    (20, 100)
    >>> draws([20.0, 100.0], [10, 100], "total")
    (18, 92)
    """
    ratios = [count / mass for count, mass in zip(counts, masses, strict=True)]
    if isinstance(length, str) and length != "total":
        factor = max(ratios) if length == "all_exhausted" else min(ratios)
        return tuple(max(1, int(mass * factor + 0.5)) for mass in masses)
    total = sum(counts) if isinstance(length, str) else length
    total = max(total, len(masses))
    factor = total / fsum(masses)
    exact = [mass * factor for mass in masses]
    found = [max(1, int(amount)) for amount in exact]
    order = sorted(range(len(found)), key=lambda i: (found[i] - exact[i], i))
    for index in order[: max(0, total - sum(found))]:
        found[index] += 1
    while sum(found) > total:  # groups that were raised to 1: the largest one gives way
        found[found.index(max(found))] -= 1
    return tuple(found)


def _filled(counts: Sequence[int], size: int) -> list[int]:
    return [*counts, *[0] * (size - len(counts))]


def _with_shares(masses: Sequence[float], shares: Sequence[float | None]) -> list[float]:
    """Masses of sum 1, of which those that have a share of their own take it."""
    given = fsum(share for share in shares if share is not None)
    rest = fsum(m for m, share in zip(masses, shares, strict=True) if share is None)
    left = max(0.0, 1 - given)
    return [
        mass * left / rest if share is None else share
        for mass, share in zip(masses, shares, strict=True)
    ]
