"""A classifier class by class: what it confuses, and what saying one class always would come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.core.records import Scored
from luthier.metrics._classes import Classes, true_and_said
from luthier.metrics._rows import divide

Pair = tuple[Classes, Classes]
Counts = npt.NDArray[np.int64]


def class_figures(
    names: Sequence[str], before: Sequence[Scored] | None, after: Sequence[Scored]
) -> dict[str, Any] | None:
    """What ``evaluation.json`` says under ``classes``.

    Args:
        names: the classes, in the order of the model's outputs.
        before: held-out examples as the model before training labelled them, where it did.
        after: the same as the trained model labelled them.

    Returns:
        ``names``; ``majority``, the most frequent true class (of several labels, the most
        frequent set of them, names joined by commas) and the accuracy of always saying it;
        ``per_class``, one a class in the order of ``names``: support (how often it is true),
        precision, recall, f1, and ``f1_before`` (``None`` without a model before); for one label
        an example also ``confusion``, counts of the trained model: truth down, prediction across.
        ``None`` where no example has a class (a regression).
    """
    pairs = _pairs(after)
    if not pairs:
        return None
    several = any(isinstance(scored.label, tuple) for scored in after)
    earlier = _f1(_counts(_pairs(before), len(names))) if before is not None else None
    counts = _counts(pairs, len(names))
    hits, said, true = counts
    precision, recall, f1 = _share(hits, said), _share(hits, true), _f1(counts)
    figures: dict[str, Any] = {"names": list(names), "majority": _majority(names, pairs)}
    if not several:
        figures["confusion"] = _confusion(pairs, len(names)).tolist()
    figures["per_class"] = [
        {
            "name": name,
            "support": int(true[i]),
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "f1_before": None if earlier is None else float(earlier[i]),
        }
        for i, name in enumerate(names)
    ]
    return figures


def _pairs(scored: Sequence[Scored]) -> list[Pair]:
    return [pair for item in scored if (pair := true_and_said(item)) is not None]


def _majority(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, Any]:
    counts = Counter(true for true, _ in pairs)
    # Of classes alike in number the first by index, whatever the order of the rows.
    most = min(counts, key=lambda classes: (-counts[classes], classes))
    return {
        "name": ", ".join(names[index] for index in most),
        "accuracy": counts[most] / len(pairs),
    }


def _confusion(pairs: Sequence[Pair], classes: int) -> Counts:
    table = np.zeros((classes, classes), dtype=np.int64)
    for (true,), (said,) in pairs:
        table[true, said] += 1
    return table


def _counts(pairs: Sequence[Pair], classes: int) -> Counts:
    """``[3, classes]``: how often each class was rightly said, said, and true."""
    counts = np.zeros((3, classes), dtype=np.int64)
    for true, said in pairs:
        counts[0, [index for index in true if index in said]] += 1
        counts[1, list(said)] += 1
        counts[2, list(true)] += 1
    return counts


def _f1(counts: Counts) -> npt.NDArray[np.float64]:
    hits, said, true = counts
    return _share(2 * hits, said + true)


def _share(above: Counts, below: Counts) -> npt.NDArray[np.float64]:
    return divide(above.astype(np.float64), below.astype(np.float64), 0.0)
