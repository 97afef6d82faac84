"""Token classification: a tag for every word of a text, such as the entities in it.

``-log softmax(W h_t)[y]`` summed over the tokens that stand for words, as transformers' own models
have it. A word is read at its first token (``labelling: first``, as in Devlin et al. 2018,
arXiv 1810.04805, section 5.3); ``all`` teaches its other tokens as well, and reads the first all
the same. Words are joined by one space, and each token is of the word that its characters are of.

A model may say an I- that follows nothing: it is read as the beginning of an entity, as conlleval
and seqeval do (:func:`luthier.core.tags.entities`). Most words are outside of entities: tags may be
weighed, by how many words have them, and words that are told well may count less
(:mod:`luthier.ops.class_losses`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from luthier.core.codec import Codec, joined
from luthier.core.contracts import Head, HeadedModel, Models
from luthier.core.errors import DataError, nearest
from luthier.core.records import Batch, Example, Ints, Record, Tagged
from luthier.core.tags import OUTSIDE, SCHEMES, entities, parts, types
from luthier.objectives._imbalance import ImbalanceConfig, settle
from luthier.ops.class_losses import class_losses, label_weights

#: The table, and the loss term.
HEAD = "token_classification"


class Config(ImbalanceConfig):
    """Settings of token classification."""

    kind: str = "token_classification"
    scheme: Literal["auto", "iob2", "bioes", "plain"] = "auto"
    """The tags that are learned; ``plain`` where they mark no entities (parts of speech).
    ``auto``: plain for such rows, else those of a model that has all of them, else iob2."""
    classes: tuple[str, ...] | None = None
    """The tags in order; those of the training rows' entities if unset."""
    labelling: Literal["first", "all"] = "first"
    """Which tokens of a word are taught its tag."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Szegedy et al. 2016 (arXiv 1512.00567)."""


class Objective:
    """See the module."""

    records: ClassVar[tuple[type[Record], ...]] = (Tagged,)
    metrics: ClassVar[tuple[str, ...]] = ("entities", "token_accuracy")
    overlong: ClassVar[str] = "window"
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        names = config.classes or ()
        self._index = {name: i for i, name in enumerate(names)}
        self._inside = np.array(
            [i for i, name in enumerate(names) if parts(name)[0] in ("I", "E", "L")], dtype=np.int64
        )

    @cached_property
    def _weights(self) -> tuple[float, ...] | None:
        """Of each tag, in order, where they differ."""
        return self.config.weights_of(self.config.classes or ())

    @property
    def heads(self) -> tuple[Head, ...]:
        """One output a tag."""
        labels = self.config.classes or ()
        return (Head(HEAD, len(labels) or None, None, labels),)

    def settled(self, records: Sequence[Record], known: Sequence[str]) -> Objective:
        """With the scheme and the tags, as the training rows have them.

        Raises:
            DataError: no row has an entity, or every word the same tag.
        """
        tagged = [record for record in records if isinstance(record, Tagged)]
        found = {tag for record in tagged for tag in record.tags}
        kinds = types(found)
        marked = all(tag == OUTSIDE or parts(tag)[0] in ("B", "I") for tag in found)
        scheme: str = self.config.scheme
        if scheme == "auto" and not (marked and kinds):
            scheme = "plain"
        if scheme == "plain":
            classes = tuple(known) if found <= set(known) else tuple(sorted(found))
        else:
            wanted: Sequence[str] = tuple(SCHEMES) if scheme == "auto" else (scheme,)
            fitting = [each for each in wanted if set(_tags(kinds, each)) <= set(known)]
            scheme = fitting[-1] if fitting else wanted[0]  # who has S- and E- means them
            classes = tuple(known) if fitting else _tags(kinds, scheme)
        classes = self.config.classes or classes
        if len(classes) < 2:
            raise DataError(
                f"every word has the same tag, {classes[0]!r}: nothing to tell apart"
                if classes
                else "no row has a tag",
                cure="give rows with entities, as B-PER and I-PER, among other words",
                code="one-class",
            )
        counts = Counter(tag for record in tagged for tag in _written(record, scheme))
        weights = settle(self.config, {name: counts[name] for name in classes})
        settings = {"scheme": scheme, "classes": classes, **weights}
        return Objective(self.config.model_copy(update=settings))

    def encode(self, record: Record, codec: Codec) -> Example:
        """A sentence as one segment, with a row for every token that is taught a tag."""
        assert isinstance(record, Tagged)
        aligned = codec.aligned(*joined(record.words))
        position = np.flatnonzero(aligned.owner >= 0)
        word = aligned.owner[position]
        first = np.diff(word, prepend=-1) != 0
        if not len(word):
            raise DataError(
                "the tokenizer leaves nothing of this sentence's words",
                str(record.origin),
                "take the row out, or another model",
                "no-target",
            )
        label = self._labels(record)[word]
        if self.config.labelling == "first":
            position, word, label = position[first], word[first], label[first]
        else:
            label = np.where(first, label, self._going_on()[label])
        table: dict[str, npt.NDArray[Any]] = {
            "position": position,
            "label": label,
            "word": word,
            "weight": np.ones(len(position), dtype=np.float32),
        }
        return Example((aligned.segment,), {HEAD: table}, record.origin)

    def cuts(self, example: Example) -> Ints:
        """Before every word that goes on with no entity."""
        table = example.targets[HEAD]
        begins = (np.diff(table["word"], prepend=-1) != 0) & ~np.isin(table["label"], self._inside)
        return np.asarray(table["position"][begins], dtype=np.int64)

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Nothing changes between epochs."""
        return examples

    def weights(self, batch: Batch) -> dict[str, float]:
        """Tokens that are taught a tag, each by the weight of its class where it has one."""
        table = batch.targets[HEAD]
        weight = table["weight"]
        if self._weights is not None:
            weights = torch.tensor(self._weights, dtype=torch.float64)
            weight = weight.cpu() * label_weights(table["label"].cpu(), weights)
        return {HEAD: float(weight.sum())}

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Sum of these tokens' losses."""
        policy, table = models.policy, batch.targets[HEAD]
        assert isinstance(policy, HeadedModel)
        states = policy.pooled(batch, policy.hidden(batch), table["position"])
        scores = policy.outputs(HEAD, states)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        losses = class_losses(
            scores,
            table["label"],
            class_weights=None if self._weights is None else scores.new_tensor(self._weights),
            gamma=self.config.focal,
            smoothing=self.config.label_smoothing,
        )
        return {HEAD: (losses * table["weight"]).sum()}

    def _labels(self, record: Tagged) -> Ints:
        """The class of every word."""
        tags = _written(record, self.config.scheme)
        for word, tag in zip(record.words, tags, strict=True):
            if tag not in self._index:
                raise DataError(
                    f"word {word!r}: the tag {tag!r} is none of the {len(self._index)} of the "
                    f"training rows: {nearest(tag, list(self._index))}",
                    str(record.origin),
                    "mend the tag, give the training rows such an entity, or name all tags in "
                    "objective.classes",
                    "tag" if types([tag]) <= types(self._index) else "class",
                )
        return np.array([self._index[tag] for tag in tags], dtype=np.int64)

    def _going_on(self) -> Ints:
        """Of each class the one that a word's further tokens are taught."""
        return np.array(
            [
                self._index.get(f"{_GOING_ON.get(prefix, prefix)}-{kind}", i)
                for i, (prefix, kind) in enumerate(map(parts, self._index))
            ],
            dtype=np.int64,
        )


#: Within a word, what begins an entity goes on with it, and what is a whole one ends it.
_GOING_ON = {"B": "I", "S": "E", "U": "L"}


def _written(record: Tagged, scheme: str) -> tuple[str, ...]:
    """A sentence's tags in a scheme."""
    if scheme not in SCHEMES:
        return record.tags
    return SCHEMES[scheme][0](entities(record.tags), len(record.tags))


def _tags(kinds: set[str], scheme: str) -> tuple[str, ...]:
    """All tags of a scheme for these types."""
    return (OUTSIDE, *(f"{p}-{kind}" for kind in sorted(kinds) for p in SCHEMES[scheme][1]))
