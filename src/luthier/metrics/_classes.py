"""Which classes a classifier said, and which are true: what every figure over classes counts."""

from __future__ import annotations

import numpy as np

from luthier.core.records import Floats, Scored

#: Of several labels, each one whose probability is above this is said.
THRESHOLD = 0.5

Classes = tuple[int, ...]


def said(probabilities: Floats, *, several: bool) -> Classes:
    """What a classifier's probabilities come to.

    Args:
        probabilities: ``[classes]``.
        several: whether an example may have several labels, or none.

    Returns:
        The most likely class, the first of those alike; of several labels all above
        :data:`THRESHOLD`, in order.

    >>> said(np.array([0.2, 0.7, 0.1], dtype=np.float32), several=False)
    (1,)
    >>> said(np.array([0.9, 0.1, 0.6], dtype=np.float32), several=True)
    (0, 2)
    """
    if several:
        return tuple(int(index) for index in np.flatnonzero(probabilities > THRESHOLD))
    return (int(np.argmax(probabilities)),)


def true_and_said(scored: Scored) -> tuple[Classes, Classes] | None:
    """True classes and said classes, ``None`` where the example has none to tell."""
    label, probabilities = scored.label, scored.probabilities
    if probabilities is None or not isinstance(label, int | tuple):
        return None
    several = isinstance(label, tuple)
    true = label if isinstance(label, tuple) else (label,)
    assert all(0 <= index < len(probabilities) for index in true), f"{scored.origin}: no such class"
    return tuple(sorted(set(true))), said(probabilities, several=several)


def numbers(scored: Scored) -> tuple[float, float] | None:
    """True number and said number, ``None`` where the example has none to tell."""
    if scored.probabilities is None or not isinstance(scored.label, float):
        return None
    return scored.label, float(scored.probabilities.reshape(-1)[0])
