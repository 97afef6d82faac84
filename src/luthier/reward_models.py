"""The models that rewards borrow: found fit before any weight loads, opened when first asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from luthier.core.contracts import Objective, OnlineObjective, Reward
from luthier.core.contracts_scores import Borrowing
from luthier.core.errors import RecipeError, nearest
from luthier.core.generators import GeneratorSpec, Writer
from luthier.core.recipe import ModelSpec
from luthier.core.records import Prompt, Record, Scored
from luthier.core.rewards import build, total, weights
from luthier.data.template import TokenizerCodec
from luthier.data_models import OpenedModels
from luthier.evaluation.measure import score_classes, text_examples
from luthier.models.heads import ClassifierModel
from luthier.models.load import known_head, load
from luthier.score import Scorer

Say = Callable[[str], None]


def open_rewards(objective: Objective, device: str, say: Say) -> dict[str, Reward]:
    """The rewards of an objective that samples, by name; none of any other.

    Args:
        objective: whose config names them.
        device: as ``training.device`` says.
        say: takes a line for the user.

    Raises:
        UserError: a reward that cannot be had: no such model, no such class, no key.
    """
    if not isinstance(objective, OnlineObjective):
        return {}
    rewards = build(objective.config.rewards)  # type: ignore[attr-defined]
    models = OpenedRewards(device, say)
    for reward in rewards.values():
        if isinstance(reward, Borrowing):
            reward.borrow(models)
    return rewards


def rewarded(
    objective: Any, rewards: Mapping[str, Reward], records: Sequence[Record], scored: list[Scored]
) -> list[Scored]:
    """Answers with what they earn, in sum; the penalty of a missing end is none of a reward's.

    Args:
        objective: whose config has the weights.
        rewards: by name.
        records: the prompts that were asked.
        scored: an answer each, of some of them.
    """
    if not isinstance(objective, OnlineObjective):
        return scored
    known = {record.origin: record for record in records if isinstance(record, Prompt)}
    asked = [known[each.origin] for each in scored]
    answers = [each.answer or "" for each in scored]
    parts = {name: reward.score(asked, answers) for name, reward in rewards.items()}
    factors = weights(objective.config.rewards)  # type: ignore[attr-defined]
    return [
        replace(each, reward=float(total({n: p[i] for n, p in parts.items()}, factors)))
        for i, each in enumerate(scored)
    ]


class OpenedRewards:
    """See :class:`luthier.core.contracts_scores.RewardModels`."""

    def __init__(self, device: str, say: Say) -> None:
        able = device in ("auto", "cuda") and torch.cuda.is_available()
        self._name, self._say = device, say
        self._device = torch.device("cuda" if able else "cpu")
        self._opened: dict[str, _Classifier] = {}
        self._scorers: dict[str, _Scorer] = {}

    def probabilities(self, model: str, label: str) -> Callable[[Sequence[str]], list[float]]:
        """Texts to a classifier's probability of one of its classes.

        Raises:
            UserError: no such model, no classifier, or no such class.
        """
        head = known_head(ModelSpec(name=model))
        if head is None or head.kind != "classification" or head.problem_type == "regression":
            raise RecipeError(
                f"reward 'classifier': '{model}' tells no classes apart",
                cure="name a run of objective: classification",
                code="reward",
            )
        if label not in head.labels:
            raise RecipeError(
                f"reward 'classifier': '{model}' knows no class '{label}', "
                f"{nearest(label, head.labels)}",
                code="reward",
            )
        opened = self._opened.setdefault(model, _Classifier(model, self._device, self._say))
        place = head.labels.index(label)
        return lambda texts: opened.probabilities(texts, place)

    def scores(self, model: str) -> Callable[[Sequence[tuple[Prompt, str]]], list[float]]:
        """Prompts with answers to what a reward model gives them.

        Raises:
            UserError: no such model, or one that scores nothing.
        """
        head = known_head(ModelSpec(name=model))
        if head is None or head.kind != "classification" or len(head.labels) != 1:
            raise RecipeError(
                f"reward 'model': '{model}' scores no answers",
                cure="name a run of objective: reward, or correctness",
                code="reward",
            )
        opened = self._scorers.setdefault(model, _Scorer(model, self._device))
        return opened.scores

    def writer(self, spec: GeneratorSpec) -> Writer:
        """A language model that answers questions.

        Raises:
            UserError: no such model, or no key.
        """
        return OpenedModels(self._name).writer(spec, self._say)


class _Classifier:
    """A classifier by name, loaded when it is first asked."""

    def __init__(self, name: str, device: torch.device, say: Say) -> None:
        self._name, self._device, self._say = name, device, say
        self._cut = False

    @cached_property
    def _loaded(self) -> tuple[ClassifierModel, TokenizerCodec]:
        with torch.random.fork_rng():
            loaded = load(self._name, device=self._device)
        assert isinstance(loaded.model, ClassifierModel)
        loaded.model.module.eval().requires_grad_(False)
        return loaded.model, TokenizerCodec(loaded.tokenizer, max_length=loaded.context)

    def probabilities(self, texts: Sequence[str], place: int) -> list[float]:
        """Of the class at this place; of a text that is too long its beginning counts."""
        model, codec = self._loaded
        examples, cut = text_examples(texts, codec)
        if cut and not self._cut:
            self._cut = True
            self._say(f"reward 'classifier': answers longer than {self._name} takes are cut")
        found = []
        for scored in score_classes(model, examples):
            assert scored.probabilities is not None
            found.append(float(scored.probabilities[place]))
        return found


class _Scorer:
    """A reward model by name, loaded when it is first asked."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._name, self._device = name, device

    @cached_property
    def _opened(self) -> Scorer:
        with torch.random.fork_rng():
            return Scorer(load(self._name, device=self._device))

    def scores(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        """What each answer is worth; a prompt too long for the model loses its beginning."""
        prompts = [prompt.turns for prompt, _ in pairs]
        return self._opened.scores(prompts, [answer for _, answer in pairs]) if pairs else []
