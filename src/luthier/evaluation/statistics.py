"""Did it get better? Paired intervals and tests for any metric whose rows can be summed.

Shapes: ``n`` examples, ``k`` figures a row, ``R`` resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import NormalDist
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from luthier.core.contracts import Metric

Array = npt.NDArray[np.float64]
#: Column sums ``[..., k]`` to values ``[...]``: a metric's ``reduce`` for one of its names.
Reduce = Callable[[Array], Array]
Interval = tuple[float, float]

CONFIDENCE = 0.95
#: Up to this many pairs that differ, all swaps are counted instead of sampled.
EXACT_PAIRS = 12
#: Cells of the largest matrix made at a time: 4 million of eight bytes.
_CELLS = 4_000_000
#: Share of resamples that may have no value before the interval is given up.
_VOID = 0.01


class Comparison(TypedDict):
    """One name of a metric before and after; ``None`` where there is no finite value.

    Attributes:
        before: value of the model before training.
        after: value of the trained model.
        difference: ``after - before``.
        interval: 95 % interval of the difference, low and high.
        before_interval: 95 % interval of ``before`` alone.
        after_interval: 95 % interval of ``after`` alone.
        p_value: two-sided, that the two models are alike.
        higher_is_better: which sign of the difference is good.
        rows: examples that counted.
    """

    before: float | None
    after: float | None
    difference: float | None
    interval: list[float] | None
    before_interval: list[float] | None
    after_interval: list[float] | None
    p_value: float | None
    higher_is_better: bool
    rows: int


def compare(
    before: Metric, after: Metric, *, resamples: int = 10_000, seed: int = 0
) -> dict[str, Comparison]:
    """Every name of a metric on the same examples, before and after training.

    Args:
        before: the metric, updated with every example as the model before training did on it.
        after: a second one, updated with the same examples in the same order.
        resamples: how many bootstrap samples, and how many random swaps.
        seed: same seed, same figures, to the last digit.

    Returns:
        A comparison a name, ready for JSON.
    """
    before_rows, after_rows = before.rows(), after.rows()
    kind = type(after)
    found: dict[str, Comparison] = {}
    for names in _sharing(kind.names, before_rows, after_rows):
        compared = _compare(
            before_rows[names[0]],
            after_rows[names[0]],
            [partial(after.reduce, name) for name in names],
            higher=kind.higher_is_better,
            resamples=resamples,
            seed=seed,
        )
        found |= zip(names, compared, strict=True)
    return {name: found[name] for name in kind.names}


def _sharing(
    names: Sequence[str], before: Mapping[str, Array], after: Mapping[str, Array]
) -> list[list[str]]:
    """Names whose rows are one array on both sides: they are drawn and summed once."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name in names:
        groups.setdefault((id(before[name]), id(after[name])), []).append(name)
    return list(groups.values())


def _compare(
    before: Array,
    after: Array,
    reduces: Sequence[Reduce],
    *,
    higher: bool,
    resamples: int,
    seed: int,
) -> list[Comparison]:
    assert before.shape == after.shape, "the two models were scored on different examples"
    rows = int(np.count_nonzero(np.any((before != 0) | (after != 0), axis=1)))
    intervals = _bootstraps(before, after, reduces, resamples=resamples, seed=seed)
    chances = _randomisations(before, after, reduces, resamples=resamples, seed=seed)
    first, second = before.sum(axis=0), after.sum(axis=0)
    found = []
    for reduce, interval, p_value in zip(reduces, intervals, chances, strict=True):
        values = float(reduce(first)), float(reduce(second))
        found.append(
            Comparison(
                before=_finite(values[0]),
                after=_finite(values[1]),
                difference=_finite(values[1] - values[0]),
                interval=_pair(interval[2]),
                before_interval=_pair(interval[0]),
                after_interval=_pair(interval[1]),
                p_value=_finite(p_value),
                higher_is_better=higher,
                rows=rows,
            )
        )
    return found


def bootstrap(
    before: Array, after: Array, reduce: Reduce, *, resamples: int = 10_000, seed: int = 0
) -> tuple[Interval, Interval, Interval]:
    """Percentile intervals (95 %) of two models on the same examples and of their difference.

    Examples are drawn with replacement, each taking both models' rows with it, and the metric is
    computed anew on every draw (Efron and Tibshirani 1993, ch. 13; paired, for corpus metrics,
    Koehn 2004).

    Args:
        before: ``[n, k]`` rows of the first model.
        after: ``[n, k]`` rows of the second.
        reduce: column sums to values.
        resamples: R.
        seed: of the draws.

    Returns:
        Intervals of the first, of the second, and of second minus first: ``(low, high)``, NaN
        where fewer than two examples stand behind it or too many draws have no value.
    """
    (intervals,) = _bootstraps(before, after, [reduce], resamples=resamples, seed=seed)
    return intervals


def _bootstraps(
    before: Array, after: Array, reduces: Sequence[Reduce], *, resamples: int, seed: int
) -> list[tuple[Interval, Interval, Interval]]:
    """:func:`bootstrap` of several figures of the same rows, on the same draws."""
    n, k = before.shape
    if n < 2:
        nothing = (math.nan, math.nan)
        return [(nothing, nothing, nothing)] * len(reduces)
    rng = np.random.default_rng(seed)
    both = np.hstack([before, after])
    values = np.empty((len(reduces), 2, resamples))
    at = 0
    for size in _chunks(resamples, n):
        totals = _counts(rng, size, n) @ both
        for i, reduce in enumerate(reduces):
            values[i, 0, at : at + size] = reduce(totals[:, :k])
            values[i, 1, at : at + size] = reduce(totals[:, k:])
        at += size
    with np.errstate(invalid="ignore"):
        differences = values[:, 1] - values[:, 0]
    return [
        (_percentiles(first), _percentiles(second), _percentiles(difference))
        for (first, second), difference in zip(values, differences, strict=True)
    ]


def randomisation(
    before: Array, after: Array, reduce: Reduce, *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of paired approximate randomisation.

    Were the models alike, swapping their rows on any example would change nothing but noise;
    the p-value is the share of random swaps that make a difference at least as large as the one
    observed: ``(count + 1) / (R + 1)`` (Noreen 1989; Yeh 2000). Where at most
    :data:`EXACT_PAIRS` examples differ, all swaps are counted and the share is exact.

    Args:
        before: ``[n, k]`` rows of the first model.
        after: ``[n, k]`` rows of the second.
        reduce: column sums to values.
        resamples: R.
        seed: of the swaps.

    Returns:
        The p-value; NaN where the difference itself has no finite value.
    """
    (p_value,) = _randomisations(before, after, [reduce], resamples=resamples, seed=seed)
    return p_value


def _randomisations(
    before: Array, after: Array, reduces: Sequence[Reduce], *, resamples: int, seed: int
) -> list[float]:
    """:func:`randomisation` of several figures of the same rows, with the same swaps."""
    first, second = before.sum(axis=0), after.sum(axis=0)
    # Swapping equal rows changes nothing: only pairs that differ are drawn for.
    moved = (after - before)[np.any(before != after, axis=1)]
    pairs = len(moved)
    values = np.array([[float(reduce(first)), float(reduce(second))] for reduce in reduces])
    with np.errstate(invalid="ignore"):
        observed = np.abs(values[:, 1] - values[:, 0])
    known = np.isfinite(observed)
    if pairs == 0 or not known.any():
        return [1.0 if finite else math.nan for finite in known]
    # Sums in another order differ in the last digits; a tie must still count as one.
    with np.errstate(invalid="ignore"):
        bars = observed - 1e-9 * np.max(np.abs(values), axis=1)

    def extreme(swaps: Array) -> npt.NDArray[np.int64]:
        shift = swaps @ moved
        one, other = first + shift, second - shift
        with np.errstate(invalid="ignore"):
            gaps = np.array([np.abs(reduce(other) - reduce(one)) for reduce in reduces])
            return np.asarray(np.count_nonzero(gaps >= bars[:, None], axis=1))

    if pairs <= EXACT_PAIRS:
        every = (np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1
        shares = extreme(every.astype(np.float64)) / float(2**pairs)
    else:
        # A stream of its own, so that the swaps do not repeat the bootstrap's draws.
        rng = np.random.default_rng([seed, 1])
        found = [extreme(_swaps(rng, size, pairs)) for size in _chunks(resamples, pairs)]
        counts = np.sum(found, axis=0)
        shares = (counts + 1) / (resamples + 1)
    return [
        float(share) if finite else math.nan for share, finite in zip(shares, known, strict=True)
    ]


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a share of successes (Wilson 1927).

    ``(p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``, which stays inside [0, 1] and
    holds for few rows, where ``p ± z se`` does not.

    Args:
        successes: how many.
        n: out of how many.
        confidence: coverage.

    Returns:
        Low and high; NaN for no rows.

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    assert 0 <= successes <= n, f"{successes} successes of {n}"
    if n == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p-value for right-or-wrong answers of two models (McNemar 1947).

    Only examples on which exactly one model is right say anything; were the models alike, each
    would be either's with probability one half: ``p = min(1, 2 P(X <= min))``,
    ``X ~ Binomial(lost + gained, 1/2)``.

    Args:
        lost: right before, wrong after.
        gained: wrong before, right after.

    Returns:
        The p-value.

    >>> round(mcnemar(2, 10), 4)
    0.0386
    """
    n = lost + gained
    term, tail = 1, 0
    for i in range(min(lost, gained) + 1):
        tail += term
        term = term * (n - i) // (i + 1)
    # Integers divided at the end: exact however many examples there are.
    return min(1.0, 2 * tail / (1 << n))


def _counts(rng: np.random.Generator, size: int, n: int) -> Array:
    """``[size, n]``: how often each of n examples is drawn in each of ``size`` resamples."""
    return rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def _swaps(rng: np.random.Generator, size: int, pairs: int) -> Array:
    """``[size, pairs]`` fair coins, 0 or 1."""
    packed = rng.integers(0, 256, size=(size, (pairs + 7) // 8), dtype=np.uint8)
    return np.unpackbits(packed, axis=1, count=pairs).astype(np.float64)


def _chunks(resamples: int, n: int) -> list[int]:
    size = max(1, min(resamples, _CELLS // n))
    whole, rest = divmod(resamples, size)
    return [size] * whole + ([rest] if rest else [])


def _percentiles(values: Array) -> Interval:
    finite = values[np.isfinite(values)]
    if len(finite) < (1 - _VOID) * len(values):
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _pair(interval: Interval) -> list[float] | None:
    return list(interval) if all(map(math.isfinite, interval)) else None
