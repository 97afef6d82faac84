"""Answers of one prompt, pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from luthier.metrics._rows import Array


def differences(scores: Any) -> Array:
    """Score of the better answer less that of the worse, of every pair.

    >>> differences(np.array([3.0, 1.0, 2.0])).tolist()
    [2.0, 1.0, -1.0]
    """
    if scores is None or len(scores) < 2:
        return np.zeros(0)
    better, worse = np.triu_indices(len(scores), 1)
    values = np.asarray(scores, dtype=np.float64)
    return np.asarray(values[better] - values[worse], dtype=np.float64)
