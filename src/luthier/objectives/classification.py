"""Classification: one class, several classes, or a number, for a text or a pair of texts.

A head on the pooled states of the whole text. One class: ``-log softmax(s)[y]``. Several:
``-sum_k y_k log sigmoid(s_k) + (1 - y_k) log(1 - sigmoid(s_k))``, a mean over the classes. A
number: ``(s - y)^2``. These are the losses of transformers' own classification models. Classes
may be weighed, and rows that are told well may count less: :mod:`luthier.ops.class_losses`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec, text_segment
from luthier.core.contracts import Head, HeadedModel, Models
from luthier.core.errors import DataError, RecipeError, nearest
from luthier.core.records import Batch, Example, Labelled, Record
from luthier.objectives._imbalance import ImbalanceConfig, settle
from luthier.ops.class_losses import class_losses, label_weights, multi_label_losses

Problem = Literal["single_label", "multi_label", "regression"]
_KINDS: dict[type, Problem] = {
    tuple: "multi_label",
    float: "regression",
    str: "single_label",
}
#: The table, and the loss term.
HEAD = "classification"


class Config(ImbalanceConfig):
    """Settings of classification."""

    kind: str = "classification"
    problem_type: Literal["auto", "single_label", "multi_label", "regression"] = "auto"
    """One class, several or a number; ``auto`` goes by the labels of the rows."""
    classes: tuple[str, ...] | None = None
    """The classes in order; those of the training rows if unset."""
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    """How a text becomes one vector; ``auto`` goes by the kind of model."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of a layer (GELU) between the pooled text and the classes; a linear head if unset."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Szegedy et al. 2016 (arXiv 1512.00567); one class only."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Labelled,)
    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "f1",
        "calibration",
        "regression_error",
        "regression_fit",
    )
    overlong: ClassVar[str] = "refuse"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self._index = {name: i for i, name in enumerate(config.classes or ())}

    @cached_property
    def _weights(self) -> tuple[float, ...] | None:
        """Of each class, in order, where they differ."""
        return self.config.weights_of(self.config.classes or ())

    @property
    def heads(self) -> tuple[Head, ...]:
        """One output a class, or one for a number."""
        c = self.config
        labels = c.classes or ()
        pooling = None if c.pooling == "auto" else c.pooling
        problem = None if c.problem_type == "auto" else c.problem_type
        return (Head(HEAD, len(labels) or None, pooling, labels, problem, c.hidden),)

    @property
    def class_column(self) -> tuple[str, str] | None:
        """Of one class each."""
        return (HEAD, "label") if self.config.problem_type == "single_label" else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of their numbers."""
        return self.config.classes or ()

    def settled(self, records: Sequence[Record], known: Sequence[str]) -> Objective:
        """With the problem's type and its classes, as the training rows have them.

        Raises:
            DataError: rows of different types, a single class, or classes for a number.
        """
        labelled = [record for record in records if isinstance(record, Labelled)]
        problem = self.config.problem_type
        if problem == "auto":
            problem = _type_of(labelled)
        if self.config.label_smoothing and problem != "single_label":
            raise RecipeError(
                f"objective.label_smoothing has no meaning where labels are {problem}",
                cure="leave it out",
            )
        if self.config.balances and problem == "regression":
            raise RecipeError(
                "objective.class_weights and focal have no meaning where labels are numbers",
                cure="leave them out",
            )
        if problem == "regression":
            classes: tuple[str, ...] = ("value",)
        else:
            found = {name for record in labelled for name in _names(record)}
            classes = self.config.classes or _in_order(found)
            if self.config.classes is None and found <= set(known):
                classes = tuple(known)
            if len(classes) < 2 and problem == "single_label":
                raise DataError(
                    f"every row has the same class, {classes[0]!r}: nothing to tell apart"
                    if classes
                    else "no row has a class",
                    cure="give rows of at least two classes",
                    code="one-class",
                )
        counts = Counter(name for record in labelled for name in _names(record))
        several = len(labelled) if problem == "multi_label" else None
        weights = settle(self.config, {name: counts[name] for name in classes}, several)
        settings = {"problem_type": problem, "classes": classes, **weights}
        return Objective(self.config.model_copy(update=settings))

    def look_ahead(self, records: Sequence[Record], codec: Codec) -> None:
        """Texts that :meth:`encode` is about to be given."""
        known = [record for record in records if isinstance(record, Labelled)]
        codec.ahead(texts=[text for r in known for text in (r.text, r.pair) if text is not None])

    def encode(self, record: Record, codec: Codec) -> Example:
        """A text or a pair as one segment, with its label."""
        assert isinstance(record, Labelled)
        table: dict[str, npt.NDArray[Any]] = {
            "segment": np.zeros(1, dtype=np.int64),
            "label": self._label(record),
            "weight": np.ones(1, dtype=np.float32),
        }
        segment = text_segment(codec, record.text, record.pair)
        return Example((segment,), {HEAD: table}, record.origin)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def weights(self, batch: Batch) -> dict[str, float]:
        """Texts, each by the weight of its class where it has one."""
        table = batch.targets[HEAD]
        weight = table["weight"]
        if self._weights is not None and self.config.problem_type == "single_label":
            labels = table["label"].cpu()
            own = label_weights(labels, torch.tensor(self._weights, dtype=torch.float64))
            weight = weight.cpu() * own
        return {HEAD: float(weight.sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of the texts' losses."""
        policy, table = models.policy, batch.targets[HEAD]
        assert isinstance(policy, HeadedModel)
        pooled = policy.pooled(batch, policy.hidden(batch), table["segment"])
        scores = policy.outputs(HEAD, pooled)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return {HEAD: (self.losses(scores, table["label"]) * table["weight"]).sum()}

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Of each text: ``[R, K]`` scores and their labels to ``[R]``."""
        config = self.config
        if config.problem_type == "regression":
            return (scores[:, 0] - labels.to(scores.dtype)) ** 2
        weights = None if self._weights is None else scores.new_tensor(self._weights)
        if config.problem_type == "multi_label":
            return multi_label_losses(scores, labels, positive_weights=weights, gamma=config.focal)
        return class_losses(
            scores,
            labels,
            class_weights=weights,
            gamma=config.focal,
            smoothing=config.label_smoothing,
        )

    def _label(self, record: Labelled) -> npt.NDArray[Any]:
        problem = self.config.problem_type
        if problem == "regression":
            return np.array([_number(record)], dtype=np.float32)
        indices = [self._class(name, record) for name in _names(record)]
        if problem == "multi_label":
            row = np.zeros((1, len(self._index)), dtype=np.float32)
            row[0, indices] = 1
            return row
        if len(indices) != 1:
            raise DataError(
                f"the row has {len(indices)} classes, where each has exactly one",
                str(record.origin),
                "set objective.problem_type: multi_label, or mend the row",
                "type",
            )
        return np.array(indices, dtype=np.int64)

    def _class(self, name: str, record: Labelled) -> int:
        if name not in self._index:
            raise DataError(
                f"class {name!r} is none of the {len(self._index)} classes of the training rows: "
                f"{nearest(name, list(self._index))}",
                str(record.origin),
                "mend the label, or name all classes in objective.classes",
                "class",
            )
        return self._index[name]


def _type_of(records: Sequence[Labelled]) -> Problem:
    first: dict[Problem, Labelled] = {}
    for record in records:
        first.setdefault(_KINDS[type(record.label)], record)
    if len(first) > 1:
        said = ", ".join(f"{kind} at {record.origin}" for kind, record in first.items())
        raise DataError(
            f"labels of different types: {said}",
            cure="write all labels alike, or say objective.problem_type",
            code="type",
        )
    return next(iter(first), "single_label")


def _names(record: Labelled) -> tuple[str, ...]:
    label = record.label
    if isinstance(label, tuple):
        return label
    return (f"{label:g}",) if isinstance(label, float) else (label,)


def _number(record: Labelled) -> float:
    try:
        return float(record.label)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(
            f"the label {record.label!r} is no number",
            str(record.origin),
            "mend it, or set objective.problem_type: single_label",
            "type",
        ) from None


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Numbers by size, everything else by the alphabet."""
    each = set(names)
    if all(name.isdecimal() for name in each):
        return tuple(sorted(each, key=int))
    return tuple(sorted(each))
