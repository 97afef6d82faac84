"""Asking a classifier: a run, a folder, an adapter or a hub id that has a classification head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.core.errors import RecipeError
from luthier.data.template import TokenizerCodec
from luthier.evaluation.measure import in_words, score_classes, text_examples
from luthier.models.heads import ClassifierModel
from luthier.models.load import Loaded, load
from luthier.score import LABELS


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one text.

    Attributes:
        label: the likeliest class, the classes above one half, or the number, in words.
        probabilities: class -> probability, the likeliest first; empty for a number.
    """

    label: str
    probabilities: dict[str, float]


class Classifier:
    """A model that puts texts into classes.

    >>> classifier = Classifier.open("runs/intents")                 # doctest: +SKIP
    >>> classifier.predict(["Where is my card?"])[0].label           # doctest: +SKIP
    'card_arrival'

    Attributes:
        context: tokens that a text may have.
        notices: what the user should know about the predictions so far (texts cut).
    """

    def __init__(self, loaded: Loaded) -> None:
        if not isinstance(loaded.model, ClassifierModel):
            raise RecipeError(
                f"'{loaded.name}' is no classifier", cure="ask it with luthier chat or generate"
            )
        if loaded.model.labels in [(label,) for label in LABELS]:
            raise RecipeError(
                f"'{loaded.name}' says what answers are worth, and reads no text by itself",
                cure=f"luthier score {loaded.name} --prompt TEXT --answer TEXT",
            )
        self.context = loaded.context
        self.notices = list(loaded.said)
        self._model = loaded.model
        self._codec = TokenizerCodec(loaded.tokenizer, max_length=loaded.context)

    @classmethod
    def open(cls, name: str) -> Classifier:
        """A classifier by name.

        Raises:
            UserError: not found, or no classifier.
        """
        return cls(load(name))

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """The class of every text, or of every pair of texts, in order."""
        if not texts:
            return []
        examples, notices = text_examples(texts, self._codec)
        self.notices += notices
        labels, number = self._model.labels, self._model.problem_type == "regression"
        made = []
        for scored in score_classes(self._model, examples):
            assert scored.probabilities is not None
            order = np.argsort(-scored.probabilities, kind="stable")
            each = {} if number else {labels[i]: float(scored.probabilities[i]) for i in order}
            made.append(Prediction(in_words(self._model, scored.probabilities), each))
        return made
