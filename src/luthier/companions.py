"""The models that stand beside the one that learns: looked at without weights, opened, asked once.

A teacher is loaded like any other model, put into evaluation mode, asked once for every example,
and freed before the first step; what it said stays in the cache.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luthier.core import cache
from luthier.core.contracts import (
    POLICY_HEADS,
    Accompanied,
    FrozenColumns,
    LanguageModel,
    Method,
    Objective,
)
from luthier.core.errors import RecipeError, UserError
from luthier.core.recipe import ModelSpec, Recipe
from luthier.core.records import Batch, Example
from luthier.core.words import size as in_words
from luthier.data.batching import micro_batches
from luthier.data.store import ExampleStore
from luthier.engine import columns, memory
from luthier.engine.backend import Backend
from luthier.models import content
from luthier.models.load import (
    count_parameters,
    known_head,
    load,
    locate,
    tokenizer_at,
    tokenizer_of,
)
from luthier.models.plan import activation_bytes, free_memory
from luthier.models.run_models import RunModels
from luthier.models.skeleton import skeleton

Say = Callable[[str], None]
#: Tokens of a micro-batch without gradients: always the same, so that what is made again is too.
TOKENS = 8192


@dataclass(frozen=True)
class Seen:
    """A companion without its weights.

    Attributes:
        name: as the recipe has it.
        words: what it is, for a person.
        parameters: how many.
        context: tokens that it can attend to.
        config: its text config.
        layout: how batches are laid out for it.
        labels: the classes of a classifier.
    """

    name: str
    words: str
    parameters: int
    context: int
    config: Any
    layout: Mapping[str, Any]
    labels: tuple[str, ...]


def labels_of(objective: Objective) -> tuple[str, ...]:
    """The classes that a companion knows, of the first that knows any.

    Raises:
        UserError: there is no such model.
    """
    for name in _named(objective).values():
        head = known_head(ModelSpec(name=name))
        if head is not None and head.labels:
            return head.labels
    return ()


def look(recipe: Recipe, objective: Objective) -> dict[str, Seen]:
    """Every companion that an objective declares, found fit to stand beside the policy.

    Raises:
        UserError: there is no such model, or it cannot read what the policy reads.
    """
    named = _named(objective)
    if not named:
        return {}
    vocabulary = _vocabulary(recipe, named)
    return {role: _look(role, name, objective, vocabulary) for role, name in named.items()}


def _named(objective: Objective) -> Mapping[str, str]:
    return objective.companions if isinstance(objective, Accompanied) else {}


def _vocabulary(recipe: Recipe, named: Mapping[str, str]) -> dict[str, int]:
    """The policy's tokens; no weight is loaded."""
    spec = recipe.model
    if spec.architecture is None:
        return dict(tokenizer_of(spec).get_vocab())
    if isinstance(spec.tokenizer, str):
        return dict(tokenizer_at(locate(spec.tokenizer, weights=False)).get_vocab())
    role, name = next(iter(named.items()))
    raise RecipeError(
        f"a tokenizer trained on this run's own text has other tokens than the {role} '{name}'",
        cure=f"model.tokenizer: {name}",
        code="vocabulary",
    )


def _look(role: str, name: str, objective: Objective, vocabulary: Mapping[str, int]) -> Seen:
    spec = ModelSpec(name=name)
    theirs = tokenizer_of(spec).get_vocab()
    if theirs != vocabulary:
        other = sum(vocabulary.get(token) != place for token, place in theirs.items())
        raise RecipeError(
            f"the {role} '{name}' has another vocabulary: {len(theirs):,} tokens beside "
            f"{len(vocabulary):,}, {other:,} of them others; what it says of a token would be "
            "read as another's",
            cure="objective: sequence_distillation learns from its answers as text, whatever the "
            "vocabulary; or start from a model of the same family",
            code="vocabulary",
        )
    head = known_head(spec)
    wanted = next((each for each in objective.heads if each.kind not in POLICY_HEADS), None)
    if (head is None) != (wanted is None):
        words = ("a classifier", "a language model")
        is_one, wants = words if wanted is None else (words[1], words[0])
        raise RecipeError(
            f"the {role} '{name}' is {is_one}, and '{objective.config.kind}' learns from {wants}",
            code="head",
        )
    if head is not None and wanted is not None and wanted.labels != head.labels:
        raise RecipeError(
            f"the {role} '{name}' tells {len(head.labels)} classes apart, which are not the "
            f"{len(wanted.labels)} of the rows, or stand in another order",
            cure="leave objective.classes out, and train a teacher on these rows' classes",
            code="class",
        )
    loaded = skeleton(spec, head=head)
    _, total = count_parameters(loaded.model.module)
    config = loaded.model.config
    said = (
        f"{role} '{name}': {config.model_type}, {config.num_hidden_layers} layers, {total:,} "
        f"parameters ({in_words(4 * total)}), run once over every example"
    )
    labels = head.labels if head else ()
    return Seen(name, said, total, loaded.context, config, loaded.model.layout, labels)


def check_room(seen: Seen, longest: int, device: torch.device) -> None:
    """Whether a companion and the longest example fit into what is free.

    Raises:
        UserError: they do not, or the example is longer than its context.
    """
    if longest > seen.context:
        raise RecipeError(
            f"the longest example has {longest:,} tokens, and '{seen.name}' takes {seen.context:,}",
            cure=f"data.max_length: {seen.context}",
            code="context",
        )
    layers = max(1, int(seen.config.num_hidden_layers))
    each = activation_bytes(seen.config, sixteen_bit=False, recompute=False) // layers
    needed, free = 4 * seen.parameters + each * max(longest, TOKENS), free_memory(device)
    if needed > free:
        raise UserError(
            f"'{seen.name}' needs about {in_words(needed)} while it is asked, and {in_words(free)} "
            f"are free on {device}",
            cure="a smaller teacher, or a smaller data.max_length",
            code="memory",
        )


@contextmanager
def opened(seen: Mapping[str, Seen], device: torch.device, width: int) -> Iterator[dict[str, Any]]:
    """The companions in evaluation mode, never trained, freed on leaving."""
    models: dict[str, Any] = {}
    for role, each in seen.items():
        model = load(each.name, device=device).model
        model.module.eval().requires_grad_(False)
        models[role] = Narrowed(model, width) if each.config.vocab_size > width else model
    try:
        yield models
    finally:
        models.clear()
        gc.collect()
        memory.release()


class Narrowed:
    """A language model that does not speak of the rows that pad its vocabulary.

    Args:
        model: the model.
        width: tokens that the policy's head knows.
    """

    def __init__(self, model: LanguageModel, width: int) -> None:
        self._model, self._width = model, width

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def logits(self, rows: Tensor) -> Tensor:
        """``[R, H] -> [R, width]``."""
        return self._model.logits(rows)[:, : self._width]


@dataclass(frozen=True)
class Asking:
    """What it takes to ask companions, or the policy as it stands, for an objective's columns.

    Attributes:
        objective: what asks.
        method: knows the policy at step 0.
        policy: the model that will learn.
        seen: the companions.
        backend: device and arithmetic.
        collate: examples to a batch on the device, laid out for the policy.
        say: takes a line for the user.
    """

    objective: Objective
    method: Method
    policy: Any
    seen: Mapping[str, Seen]
    backend: Backend
    collate: Callable[[Sequence[Example]], Batch]
    say: Say

    def answered(self, store: ExampleStore) -> ExampleStore:
        """Examples with the objective's columns, asked for or read from the cache.

        Raises:
            UserError: a companion that does not fit into memory or cannot read the examples.
        """
        objective = self.objective
        assert isinstance(objective, FrozenColumns)
        longest = int(store.sizes.max())
        for role, each in self.seen.items():
            if dict(each.layout) != self.policy.layout:
                raise RecipeError(
                    f"the {role} '{each.name}' reads batches in another layout than the model",
                    cure="take one of the same family",
                    code="layout",
                )
        place = cache.place("columns", self._name(store))
        if self.backend.main and not place.is_dir():
            for each in self.seen.values():
                check_room(each, longest, self.backend.device)
                self.say(f"asking {each.words}")
            if not self.seen:
                self.say(f"asking the model as it begins about {len(store):,} examples, once")
            self._ask(store, place, longest)
            cache.trim()
        self.backend.barrier()
        found = self._ask(store, place, longest)
        return ExampleStore({**store.arrays, **found}, store.sources)

    def _ask(self, store: ExampleStore, place: Any, longest: int) -> columns.Arrays:
        budget = max(longest, TOKENS)
        training = self.policy.module.training
        self.policy.module.eval()

        def cut(sizes: Sequence[int]) -> list[list[int]]:
            return micro_batches(sizes, budget)

        def smaller(said: str) -> None:
            nonlocal budget
            budget = memory.halved(budget, longest, micro_batches, store.sizes.tolist(), said)

        def work() -> columns.Arrays:
            if place.is_dir():
                return self._columns(store, {}, cut, place)
            width = int(self.policy.config.vocab_size)
            with (
                opened(self.seen, self.backend.device, width) as models,
                self.backend.arithmetic(),
            ):
                return self._columns(store, models, cut, place)

        try:
            return memory.retried(work, smaller)
        finally:
            self.policy.module.train(training)

    def _columns(
        self, store: ExampleStore, models: Mapping[str, Any], cut: Any, place: Any
    ) -> columns.Arrays:
        run = RunModels(self.policy, self.method, models)
        assert isinstance(self.objective, FrozenColumns)
        return columns.frozen_columns(store, self.objective, run, cut, self.collate, place)

    def _name(self, store: ExampleStore) -> str:
        """Hash of all that decides what the columns hold."""
        tokens = hashlib.sha256()
        for name in sorted(store.arrays):
            tokens.update(name.encode())
            tokens.update(store.arrays[name].tobytes())
        models = [content.whole(each.name) or _weights_of(each) for each in self.seen.values()]
        if not self.seen or self.objective.needs_reference:
            models.append(weights_key(self.policy.module))
        config = self.objective.config.model_dump(mode="json")
        config = dict(getattr(self.objective, "column_settings", config))
        for role, each in self.seen.items():  # the same model under another path is the same
            config = {k: (role if v == each.name else v) for k, v in config.items()}
        return cache.key(tokens.hexdigest(), models, config, self.backend.precision)


def weights_key(module: nn.Module) -> str:
    """Hash of every weight."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode())
        found.update(
            tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
        )
    return found.hexdigest()


def _weights_of(seen: Seen) -> str:
    """Of a model whose files are not here yet."""
    return weights_key(load(seen.name).model.module)
