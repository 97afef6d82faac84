"""Perplexity and bits per byte: how surprised the model is by held-out text."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from luthier.core.contracts import KindConfig
from luthier.core.records import Scored
from luthier.metrics._rows import Array, Rows, ratio


class Config(KindConfig):
    """Perplexity has no settings."""

    kind: str = "perplexity"


class Metric:
    """Perplexity and bits per byte, each over all targets together.

    ``perplexity = exp(sum nll / tokens)`` weighs tokens, not examples (Jelinek, Mercer, Bahl and
    Baker 1977); ``bits_per_byte = sum nll / (ln 2 * bytes)`` compares models whose tokenizers
    differ (Gao et al. 2020, arXiv:2101.00027). Both are NaN where there is no token or no byte.

    >>> from luthier.core.records import Origin
    >>> metric = Metric()
    >>> losses = np.full(3, math.log(8), dtype=np.float32)
    >>> metric.update(Scored(Origin("test", 1), losses=losses, bytes=9))
    >>> {n: round(float(metric.reduce(n, r.sum(0))), 4) for n, r in metric.rows().items()}
    {'perplexity': 8.0, 'bits_per_byte': 1.0}
    """

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})
    names: ClassVar[tuple[str, ...]] = ("perplexity", "bits_per_byte")
    higher_is_better: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._rows = Rows({"perplexity": 2, "bits_per_byte": 2})

    def update(self, scored: Scored) -> None:
        """Adds one example; without losses, or bytes, it counts for nothing."""
        if scored.losses is None:
            self._rows.add("perplexity")
            self._rows.add("bits_per_byte")
            return
        nll = float(np.sum(scored.losses, dtype=np.float64))
        self._rows.add("perplexity", nll, len(scored.losses))
        if scored.bytes is None:
            self._rows.add("bits_per_byte")
        else:
            self._rows.add("bits_per_byte", nll, scored.bytes)

    def rows(self) -> dict[str, Array]:
        """``[nll, tokens]`` and ``[nll, bytes]`` of each example, nats."""
        return self._rows.arrays()

    def reduce(self, name: str, totals: Array) -> Array:
        """Column sums ``[..., 2]`` to values ``[...]``; a perplexity too large is infinite."""
        nats = ratio(totals)
        if name == "bits_per_byte":
            return nats / math.log(2)
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(nats))
