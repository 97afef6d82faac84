"""A distribution of lengths as a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BINS, _WIDTH = 8, 40
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def histogram(lengths: npt.NDArray[np.int64]) -> Iterator[str]:
    """Bars and percentiles.

    Args:
        lengths: ascending.
    """
    import numpy as np

    if not len(lengths):
        yield "(no example could be made)"
        return
    # A document of a million tokens must not squeeze all others into the first bar.
    shortest, most_of_them = int(lengths[0]), float(np.quantile(lengths, 0.95))
    step = nice((most_of_them - shortest) / _BINS)
    edges = (np.arange(_BINS + 1) + (shortest - 1) // step) * step
    counts = np.histogram(lengths, edges + 0.5)[0].tolist()
    beyond = int((lengths > edges[-1]).sum())
    while not counts[-1] and not beyond:
        counts.pop()
    labels = [f"{edges[i] + 1:,} to {edges[i + 1]:,}" for i in range(len(counts))]
    if beyond:
        labels.append(f"above {edges[-1]:,}")
        counts.append(beyond)
    wide, most = max(map(len, labels)), max(counts)
    for label, count in zip(labels, counts, strict=True):
        yield f"{label:>{wide}}  {bar(count / most, _WIDTH)} {count:,}"
    yield ""
    median, nine = np.quantile(lengths, [0.5, 0.9], method="inverted_cdf")
    yield f"half have at most {median:,}, nine in ten at most {nine:,}, the longest {lengths[-1]:,}"


def bar(share: float, width: int) -> str:
    """A bar of ``share`` of ``width`` columns, in eighths of one; never nothing for something.

    >>> bar(0.5, 4), bar(0.001, 4), bar(0.0, 4)
    ('██', '▏', '')
    """
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + _EIGHTHS[rest].strip()


def nice(step: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 and so on.

    >>> [nice(x) for x in (0.3, 1.5, 3, 12, 51)]
    [1, 2, 5, 20, 100]
    """
    scale = 1
    while True:
        for factor in (1, 2, 5):
            if factor * scale >= step:
                return factor * scale
        scale *= 10
