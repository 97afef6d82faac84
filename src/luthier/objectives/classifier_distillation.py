"""Distillation of a classifier: a small one learns a large one's probabilities of all classes.

``alpha T^2 D(p, q) + (1 - alpha) loss(y)`` with the teacher's and the student's distributions over
the classes, softened by the temperature ``T`` (Hinton et al. 2015, arXiv 1503.02531), and the loss
of :mod:`luthier.objectives.classification` on the row's own label. Where a text may have several
classes, each of them is a distribution of yes and no, and the mean over the classes is taken. A
text without a label (a row of text alone) teaches what the teacher says of it and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec, text_segment
from luthier.core.contracts import HeadedModel, Models
from luthier.core.errors import DataError, RecipeError
from luthier.core.records import Batch, Example, Labelled, Record, Text
from luthier.objectives import classification
from luthier.objectives.classification import HEAD
from luthier.objectives.distillation import TEACHER, Softened
from luthier.ops.divergence import divergence

#: What the label's column says of a text that has none.
UNKNOWN = -1
#: Settings that mean what they do in classification.
_SHARED = ("problem_type", "classes", "pooling", "hidden")


class Config(Softened):
    """Settings of a classifier's distillation."""

    kind: str = "classifier_distillation"
    problem_type: Literal["auto", "single_label", "multi_label"] = "auto"
    """One class or several; ``auto`` goes by the labels of the rows."""
    classes: tuple[str, ...] | None = None
    """The classes in order; the teacher's if unset."""
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    """How a text becomes one vector; ``auto`` goes by the kind of model."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of a layer (GELU) between the pooled text and the classes; a linear head if unset."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Labelled, Text)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "calibration")
    overlong: ClassVar[str] = "refuse"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        own = {name: getattr(config, name) for name in _SHARED}
        self._labels = classification.Objective(classification.Config(**own))
        self.heads = self._labels.heads

    @property
    def companions(self) -> Mapping[str, str]:
        """The teacher."""
        return {TEACHER: self.config.teacher}

    def settled(self, records: Sequence[Record], known: Sequence[str]) -> Objective:
        """With the problem's type and its classes, the teacher's where the rows have no other.

        Raises:
            DataError: rows of different types, a single class, or no label at all.
            RecipeError: labels that are numbers.
        """
        labelled = [record for record in records if isinstance(record, Labelled)]
        if not labelled:
            raise DataError(
                "no row has a label: the classes are known, and nothing says how good they are",
                cure="add some labelled rows",
                code="no-label",
            )
        found = self._labels.settled(labelled, known).config
        if found.problem_type == "regression":
            raise RecipeError(
                "the rows' labels are numbers, and a number has no distribution to learn from",
                cure="objective: classification, on the teacher's own answers as labels",
            )
        settings = {name: getattr(found, name) for name in ("problem_type", "classes")}
        return Objective(self.config.model_copy(update=settings))

    def encode(self, record: Record, codec: Codec) -> Example:
        """A text or a pair as one segment, with its label where it has one."""
        if isinstance(record, Labelled):
            return self._labels.encode(record, codec)
        assert isinstance(record, Text)
        several = self.config.problem_type == "multi_label"
        shape = (1, len(self.config.classes or ())) if several else (1,)
        kind = np.float32 if several else np.int64
        table: dict[str, Any] = {
            "segment": np.zeros(1, dtype=np.int64),
            "label": np.full(shape, UNKNOWN, dtype=kind),
            "weight": np.ones(1, dtype=np.float32),
        }
        return Example((text_segment(codec, record.text),), {HEAD: table}, record.origin)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """The teacher's scores of every class."""
        teacher = models.companions[TEACHER]
        return {HEAD: {"teacher_score": _scores(teacher, batch)}}

    def weights(self, batch: Batch) -> dict[str, float]:
        """Texts, and texts with a label."""
        table = batch.targets[HEAD]
        weights = {"distillation": float(table["weight"].sum())}
        if self.config.alpha < 1:
            weights[HEAD] = float((table["weight"] * _known(table["label"])).sum())
        return weights

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sums of the texts' divergences, and of the losses of their labels."""
        c, table = self.config, batch.targets[HEAD]
        scores = _scores(models.policy, batch)
        said, own = (self._logprobs(s) for s in (table["teacher_score"].to(scores), scores))
        apart = divergence(said, own, c.divergence, c.mixture)
        if apart.ndim > 1:
            apart = apart.mean(1)
        terms = {"distillation": c.alpha * c.temperature**2 * (apart * table["weight"]).sum()}
        if c.alpha < 1:
            known = _known(table["label"])
            labels = table["label"].clamp(min=0)
            losses = self._labels.losses(scores, labels) * known * table["weight"]
            terms[HEAD] = (1 - c.alpha) * losses.sum()
        return terms

    def _logprobs(self, scores: Tensor) -> Tensor:
        """Softened log-probabilities: ``[R, K]``, or yes and no of each class ``[R, K, 2]``."""
        soft = scores / self.config.temperature
        if self.config.problem_type == "multi_label":
            return torch.stack([F.logsigmoid(soft), F.logsigmoid(-soft)], dim=-1)
        return soft.log_softmax(-1)


def _known(labels: Tensor) -> Tensor:
    """Which texts have a label."""
    return (labels if labels.ndim == 1 else labels.min(1).values) >= 0


def _scores(model: object, batch: Batch) -> Tensor:
    assert isinstance(model, HeadedModel)
    pooled = model.pooled(batch, model.hidden(batch), batch.targets[HEAD]["segment"])
    scores = model.outputs(HEAD, pooled)
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
