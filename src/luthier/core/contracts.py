"""The seams: what an objective, a method, a metric, a reward and a generator promise.

A kind is a module in the folder of that name (``objectives/sft.py`` is ``kind: sft``). The module
defines ``Config`` (a :class:`KindConfig`) and one class named after the folder's contract
(``Objective``, ``Method``, ``Metric``, ``Format``, ``Cleaner``, ``Augmenter``, ``Reward``) that is
built from it.
The seams that see rows before they are tokens stand in :mod:`luthier.core.contracts_data`, those
that judge what came out in :mod:`luthier.core.contracts_scores`.

Shapes as in :mod:`luthier.core.records`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from luthier.core.codec import Codec
from luthier.core.contracts_data import Augmenter as Augmenter
from luthier.core.contracts_data import Cleaner as Cleaner
from luthier.core.contracts_data import Format as Format
from luthier.core.contracts_data import Gathering as Gathering
from luthier.core.contracts_scores import Metric as Metric
from luthier.core.contracts_scores import Reward as Reward
from luthier.core.records import Answer, Batch, Example, Record
from luthier.core.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor, nn


class KindConfig(Settings):
    """Base of every kind's configuration: frozen, unknown keys refused.

    A subclass gives ``kind`` its module's name as a default and leaves it a ``str``: a user's own
    module goes by its import path.
    """

    kind: str
    """The module's name, or a user's own module by import path."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head that an objective needs on the trunk.

    Attributes:
        kind: ``lm``, ``masked_lm``, ``classification``, ``token_classification`` or ``value``;
            ``several`` of heads side by side on one trunk, which are its ``parts``.
        classes: number of outputs, for the classification heads.
        pooling: how a whole segment becomes one vector (``mean``, ``first``, ``last``); ``None``
            lets the kind of model decide.
        labels: the classes' names, in the order of the outputs.
        problem_type: ``single_label``, ``multi_label`` or ``regression``.
        hidden: width of a layer between the pooled state and the outputs; ``None`` for none.
        name: the task that it is for, where several stand side by side.
        parts: the heads of ``several``.
    """

    kind: str
    classes: int | None = None
    pooling: str | None = None
    labels: tuple[str, ...] = ()
    problem_type: str | None = None
    hidden: int | None = None
    name: str = ""
    parts: tuple[Head, ...] = ()

    @property
    def reads(self) -> tuple[Any, ...]:
        """What it is for: a head that reads otherwise is another."""
        return self.kind, self.labels, self.name, tuple(part.reads for part in self.parts)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Head:
        """A head as JSON has it."""
        made = {**values, "labels": tuple(values.get("labels", ()))}
        return cls(**{**made, "parts": tuple(map(cls.of, values.get("parts", ())))})


#: Heads of a language model itself, and of one that learns what its answers will earn.
POLICY_HEADS = ("lm", "value")


class LanguageModel(Protocol):
    """A trunk with its heads, as objectives see it; layouts and adapters stay behind it."""

    @property
    def module(self) -> nn.Module:
        """The torch module."""
        ...

    def hidden(self, batch: Batch) -> Tensor:
        """Last hidden states ``[N, H]`` of the batch's tokens, in logical order."""
        ...

    def nll(self, batch: Batch, hidden: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Weighted sum of the ``lm`` table's negative log-likelihoods, a scalar, in nats."""
        ...

    def logprobs(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Each ``lm`` target's log-probability ``[R]``, and whether it was the likeliest."""
        ...

    def logits(self, rows: Tensor) -> Tensor:
        """The language-model head on chosen hidden states: ``[R, H] -> [R, V]``."""
        ...


@runtime_checkable
class HeadedModel(LanguageModel, Protocol):
    """A model with heads beside the language model's; what it has none of, it refuses."""

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        """Each of these segments as one vector ``[R, H]``, by the head's pooling.

        Of a head that reads tokens, ``segments`` are positions, and each one's state is given.
        """
        ...

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        """A head, by its kind, on chosen or pooled states: ``[R, H] -> [R, outputs]``."""
        ...


class Models(Protocol):
    """The models of a run: the one that learns, its reference, its companions."""

    @property
    def policy(self) -> LanguageModel:
        """The model being trained."""
        ...

    @property
    def companions(self) -> Mapping[str, LanguageModel]:
        """Teacher, reward or value models that the objective's config declared."""
        ...

    def reference(self) -> AbstractContextManager[LanguageModel]:
        """The policy as it was at this run's step 0, without gradients."""
        ...


@runtime_checkable
class Objective(Protocol):
    """What is optimised: records to examples, a batch to loss terms.

    No objective divides: losses are sums, :meth:`weights` says by what the engine divides once
    the totals over all micro-batches and ranks are known. What more an objective needs of the
    engine is a protocol of its own below, from :class:`Accompanied` to :class:`OnlineObjective`.
    """

    records: ClassVar[tuple[type[Record], ...]]
    metrics: ClassVar[tuple[str, ...]]
    #: What becomes of an example longer than the context unless the recipe says otherwise:
    #: ``window`` (consecutive windows, nothing lost), ``refuse``, or a cut that is counted; of
    #: several tasks ``task``, as each says.
    overlong: ClassVar[str]
    #: Whether the loss asks for ``models.reference()``, which is then kept at step 0.
    needs_reference: ClassVar[bool]

    @property
    def config(self) -> KindConfig:
        """Its settings."""
        ...

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that the loss reads."""
        ...

    def encode(self, record: Record, codec: Codec) -> Example:
        """A record in tokens and targets.

        Raises:
            UserError: where the record cannot be understood under this objective.
        """
        ...

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """What changes every epoch (masks, pairings); ``rng`` is keyed by (seed, epoch, step).

        Held-out examples are arranged once, by a generator of their own.
        """
        ...

    def weights(self, batch: Batch) -> dict[str, float]:
        """Each term's weight in this batch, known before any forward pass.

        Counted from the rows of the tables: a rank without work runs a batch without rows, which
        weighs nothing and sums to nothing.
        """
        ...

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Each term's sum over this batch: scalars under the names that ``weights`` gives.

        The step's loss is the sum of all terms over their weights; a term's coefficient is the
        objective's to multiply.
        """
        ...


@runtime_checkable
class Settling(Protocol):
    """An objective whose settings depend on the rows (a classifier's classes)."""

    def settled(self, records: Sequence[Record], known: Sequence[str]) -> Objective:
        """The same with everything known; its config then says it all.

        Args:
            records: the training records.
            known: class names that the model to start from already has.
        """
        ...


@runtime_checkable
class Accompanied(Protocol):
    """An objective that needs other models beside the policy (a teacher, a reward model).

    They read the policy's own tokens, so their vocabularies must be the same.
    """

    @property
    def companions(self) -> Mapping[str, str]:
        """Name in ``models.companions`` -> the model, as a recipe names it; never trained."""
        ...


@runtime_checkable
class FrozenColumns(Protocol):
    """An objective with columns that the steps do not change.

    The log-probabilities of the reference, a teacher's top logits; after sampling, what the
    policy said then, and the advantages that follow from it. Of an offline objective the policy
    is then the model of step 0, so the reference's words are asked of it and no copy is kept. An
    attribute ``column_settings`` names the settings that they depend on where not all do.
    """

    def columns(self, models: Models, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """Further columns of the batch's tables, row by row, without gradient.

        The engine asks once for every example, before the first step or after :meth:`collect`,
        and every later batch carries them; of an offline objective they are cached.
        """
        ...


@runtime_checkable
class StepStatistics(Protocol):
    """An objective whose loss needs a figure of the whole step (KTO's KL baseline)."""

    def statistics(self, models: Models, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Sums over these batches, without gradient, under the same names on every rank.

        The engine adds over ranks and puts the totals into every batch's ``step``, which tells
        from the start how many ``examples`` the step has and whether this batch is the ``whole``
        of it; in validation the step is all that is held out. Vectors laid at their places in
        zeros add up to all of them.
        """
        ...


@runtime_checkable
class Watching(Protocol):
    """An objective that reports more than it learns from (accuracy, KL, the share clipped)."""

    @property
    def watched(self) -> frozenset[str]:
        """Terms of ``loss`` that are averaged and logged, and no part of the step's loss."""
        ...


@runtime_checkable
class Uncoupled(Protocol):
    """An objective whose loss takes each leaf of an example's tree by itself.

    A cut may then leave one leaf out whole and keep the others.
    """

    independent_leaves: ClassVar[bool]


class Generator(Protocol):
    """Batched sampling from a language model."""

    def sample(
        self, prompts: Sequence[Sequence[int]], answers: int, seed: int, **settings: Any
    ) -> list[list[Answer]]:
        """Several answers to each prompt, drawn by ``seed``; settings as temperature, by name.

        The setting ``told`` is called with a prompt's number and its answers as soon as they are
        there; one that never calls it is a generator too.
        """
        ...


@runtime_checkable
class OnlineObjective(Objective, Protocol):
    """An objective that samples before it learns; ``batch_size`` then counts prompts.

    A step is one rollout: prompts are answered, models say once what they think of it
    (:class:`FrozenColumns`), :meth:`credit` works out what was earned, and ``inner_epochs`` passes
    over the answers, in ``mini_batches`` optimizer updates each, learn from it.
    """

    inner_epochs: int
    mini_batches: int
    #: How often prompts that :meth:`keeps` refuses are replaced by others in a step.
    redraws: int

    def longest(self, prompt: int) -> int:
        """Tokens, at most, of the example that a prompt of so many tokens becomes."""
        ...

    def collect(
        self,
        records: Sequence[Record],
        codec: Codec,
        generator: Generator,
        rewards: Mapping[str, Reward],
        seed: int,
    ) -> Sequence[Example]:
        """Sampled answers as children of their prompts, with what the rewards gave as columns.

        Every example has a table ``answer`` with the ``segment`` and the ``reward`` of each.
        """
        ...

    def keeps(self, example: Example) -> bool:
        """Whether there is something to learn from a prompt's answers."""
        ...

    def credit(
        self, examples: Sequence[Example], memory: dict[str, float]
    ) -> tuple[Sequence[Example], dict[str, float]]:
        """The examples of a whole rollout with what follows from all of it, and figures to log.

        ``memory`` holds plain numbers from one step to the next (a running baseline); it is the
        same on every rank, and part of a checkpoint.
        """
        ...

    def alarm(self, figures: Mapping[str, float]) -> str | None:
        """Why the run must not go on, by the figures of a rollout."""
        ...


class Method(Protocol):
    """Which parameters are trained, and how."""

    #: The peak learning rate that ``learning_rate: auto`` takes.
    default_rate: ClassVar[float]

    def supports(self, objective: Objective) -> str | None:
        """Why this pairing makes no sense, or ``None`` where it does."""
        ...

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model with exactly this method's parameters trainable."""
        ...

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Optimizer groups: ``params``, ``names``, ``rate`` and ``decay``.

        ``rate`` is a factor on the learning rate, ``decay`` whether weight decay shrinks them.
        """
        ...

    def frozen_depth(self, model: nn.Module) -> int:
        """How many bottom layers never change: the trunk whose activations can be cached."""
        ...

    def keep_start(self, model: nn.Module) -> None:
        """Called at step 0 where an objective needs :meth:`reference`; keeps what it needs."""
        ...

    def reference(self, model: nn.Module) -> AbstractContextManager[None]:
        """While open, the model computes what it computed at step 0 of this run."""
        ...

    def save(self, model: nn.Module, folder: Path) -> None:
        """What was trained, in the field's own format, safetensors only."""
        ...

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The inverse of :meth:`save` on a freshly loaded base model."""
        ...

    def merge(self, model: nn.Module) -> nn.Module:
        """A plain model that computes the same; refused where that has no meaning."""
        ...
