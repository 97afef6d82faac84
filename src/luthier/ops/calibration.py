"""How far probabilities are from how often they are right: bins of confidence that can be summed.

``R`` predictions, ``B`` bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: Of equal width between 0 and 1, as in Guo et al. 2017 (arXiv 1706.04599).
BINS = 15


def binned(confidence: npt.ArrayLike, right: npt.ArrayLike) -> Array:
    """Predictions, summed confidence and right ones of each bin: ``[R]`` twice to ``[B, 3]``.

    >>> binned([0.9, 0.95, 0.2], [1, 0, 0]).sum(axis=0).tolist()
    [3.0, 2.05, 1.0]
    """
    sure, hits = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    place = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    made = np.zeros((BINS, 3))
    np.add.at(made, place, np.stack([np.ones_like(sure), sure, hits], axis=-1))
    return made


def expected_error(bins: Array) -> Array:
    """Expected calibration error, ``sum_b |right_b - confidence_b| / R``: ``[..., B, 3] -> [...]``.

    NaN where there is no prediction.
    """
    apart = np.abs(bins[..., 2] - bins[..., 1]).sum(-1)
    count = bins[..., 0].sum(-1)
    out = np.full(np.shape(count), np.nan)
    np.divide(apart, count, out=out, where=count > 0)
    return out
