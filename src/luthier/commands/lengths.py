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

    from luthier.core.histogram import bins

    if not len(lengths):
        yield "(no example could be made)"
        return
    found = bins(lengths, _BINS)
    labels, counts = [str(each) for each in found], [each.count for each in found]
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
