"""Asking a model with several heads: every task that labels says what it makes of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from luthier.classify import Classifier, Prediction
from luthier.core.errors import RecipeError
from luthier.models.load import Loaded, load
from luthier.models.several import SeveralModel
from luthier.tag import Tagger, Tagging

#: Kind of head -> what asks it.
_ASK: dict[str, Any] = {"classification": Classifier, "token_classification": Tagger}


class Tasks:
    """A model of several tasks on one trunk.

    >>> tasks = Tasks.open("runs/assistant")                             # doctest: +SKIP
    >>> tasks.predict(["Play something by Bach."])[0]["intent"].label    # doctest: +SKIP
    'PlayMusic'

    Attributes:
        parts: what each task that labels is asked with, by name.
        silent: tasks that label nothing (language modelling, masked or not).
        context: tokens that a text may have.
    """

    def __init__(self, loaded: Loaded) -> None:
        if not isinstance(loaded.model, SeveralModel):
            raise RecipeError(f"'{loaded.name}' has not several heads", cure="ask it with generate")
        self.parts: dict[str, Classifier | Tagger] = {}
        self._said = list(loaded.said)
        self.silent: list[str] = []
        for part in loaded.model.head.parts:
            if part.kind in _ASK:
                one = replace(loaded, model=loaded.model.view(part.name), said=[])
                self.parts[part.name] = _ASK[part.kind](one)
            else:
                self.silent.append(part.name)
        self.context = loaded.context

    @classmethod
    def open(cls, name: str) -> Tasks:
        """A model with several heads by name.

        Raises:
            UserError: not found, or no such model.
        """
        return cls(load(name))

    @property
    def notices(self) -> list[str]:
        """What the user should know about the predictions so far, each line once."""
        found = [line for part in self.parts.values() for line in part.notices]
        return list(dict.fromkeys([*self._said, *found]))

    def predict(self, texts: Sequence[str]) -> list[dict[str, Prediction | Tagging]]:
        """What every task that labels says of every text, in order."""
        found = {name: part.predict(texts) for name, part in self.parts.items()}
        return [{name: each[i] for name, each in found.items()} for i in range(len(texts))]
