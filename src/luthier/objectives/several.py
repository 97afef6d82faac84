"""Several tasks on one trunk, each an objective with a head of its own; a row is of one of them.

``L = sum_t c_t sum_k S_tk / W_tk``: every term ``S_tk`` of a task ``t`` over its own weight in the
whole step, as if the task stood alone, times the task's coefficient (hard parameter sharing:
Caruana 1997, "Multitask Learning"; rows of all tasks in one step and a head a task: Liu et al.
2019, arXiv 1901.11504; coefficients: Kendall et al. 2018, arXiv 1705.07115, section 3, here given
and not learned). How often a task's rows are drawn is the mixture's to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, WithJsonSchema, model_validator
from torch import Tensor

from luthier.core import kinds
from luthier.core.codec import Codec
from luthier.core.contracts import (
    Accompanied,
    FrozenColumns,
    Head,
    KindConfig,
    Models,
    OnlineObjective,
    Settling,
    StepStatistics,
    Watching,
)
from luthier.core.contracts import (
    Objective as AnyObjective,
)
from luthier.core.contracts_beside import Answered
from luthier.core.contracts_tasks import BY_TASK, ManyHeads, named, of_task
from luthier.core.contracts_text import Tokenized
from luthier.core.errors import DataError, RecipeError, UserError, nearest
from luthier.core.records import Batch, Example, Record, Table

#: The head of all heads.
HEAD = "several"
#: Heads that may stand side by side.
_BESIDE = ("classification", "token_classification", "masked_lm", "lm")
_ALONE = (Accompanied, Answered, FrozenColumns, OnlineObjective, StepStatistics, Watching)
_JSON: Any = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"kind": {"type": "string", "description": "Which objective."}},
            "required": ["kind"],
        },
    ]
}
TaskConfig = Annotated[
    SerializeAsAny[KindConfig],
    BeforeValidator(partial(kinds.config, "objectives")),
    WithJsonSchema(_JSON),
]


class Config(KindConfig):
    """Settings of several tasks."""

    kind: str = "several"
    tasks: dict[str, TaskConfig] = Field(
        min_length=1,
        examples=[{"topic": {"kind": "classification"}, "entities": "token_classification"}],
    )
    """Each task's objective, with its settings: ``{intent: classification, entities: …}``."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Coefficients of tasks' losses; 1 where none is given."""

    @model_validator(mode="after")
    def _names(self) -> Config:
        for name in self.tasks:
            if not re.fullmatch(r"[A-Za-z]\w*", name):
                raise ValueError(f"task {name!r} must be a word of letters, digits and _")
        for name in self.weights:
            if name not in self.tasks:
                raise ValueError(f"names no task '{name}', {nearest(name, self.tasks)}")
        return self


class Objective:
    """See the module."""

    needs_reference = False
    overlong = BY_TASK

    def __init__(self, config: Config, tasks: Mapping[str, AnyObjective] | None = None) -> None:
        self.config = config
        made = {n: kinds.build("objectives", c) for n, c in config.tasks.items()}
        self.tasks: Mapping[str, AnyObjective] = made if tasks is None else tasks
        for name, task in self.tasks.items():
            _check(name, task)
        self.records = _all(task.records for task in self.tasks.values())
        self.metrics = _all(task.metrics for task in self.tasks.values())
        self._known: Mapping[str, Sequence[str]] = {}
        self._first: Mapping[str, Sequence[Record]] = {}
        self._empty: dict[str, dict[str, Table]] | None = None

    @property
    def heads(self) -> tuple[Head, ...]:
        """One, of the tasks' own as parts."""
        return (Head(HEAD, parts=tuple(replace(t.heads[0], name=n) for n, t in self._each)),)

    @property
    def _each(self) -> Sequence[tuple[str, AnyObjective]]:
        return list(self.tasks.items())

    def knowing(self, known: Mapping[str, Sequence[str]]) -> Objective:
        """The same, with the class names that the model to start from has for a task."""
        made = Objective(self.config, self.tasks)
        made._known = known
        return made

    def settled(self, records: Sequence[Record], known: Sequence[str]) -> Objective:
        """Each task on its own rows.

        Raises:
            DataError: a task without rows, or with rows that it cannot settle on.
        """
        made, first = {}, {}
        for name, task in self._each:
            own = of_task(records, name)
            if not own:
                raise DataError(f"task '{name}': no row to learn from is left", code="no-rows")
            first[name] = own[:_TRIED]
            made[name] = task
            if isinstance(task, Settling):
                made[name] = task.settled(own, self._known.get(name, ()))
        configs = {name: task.config for name, task in made.items()}
        found = Objective(self.config.model_copy(update={"tasks": configs}), made)
        found._first = first
        return found

    def with_codec(self, codec: Codec) -> Objective:
        """The same, each task that must knowing the codec's tokens."""
        told = {n: t.with_codec(codec) if isinstance(t, Tokenized) else t for n, t in self._each}
        made = Objective(self.config, told)
        made._first = self._first
        return made

    def encode(self, record: Record, codec: Codec) -> Example:
        """As the record's task does; the other tasks' tables have no rows."""
        if self._empty is None:
            self._empty = {n: self._without_rows(n, codec) for n in self.tasks}
        name = named(record.origin)
        return self.among(self.tasks[name].encode(record, codec), name)

    def _without_rows(self, name: str, codec: Codec) -> dict[str, Table]:
        """A task's tables, empty, as its first record that can be put into tokens has them."""
        for record in self._first.get(name, ()):
            try:
                example = self.tasks[name].encode(record, codec)
            except UserError:
                continue
            return {
                self.table(name, own): {column: v[:0] for column, v in table.items()}
                for own, table in example.targets.items()
            }
        raise DataError(
            f"task '{name}': none of its first {_TRIED} rows can be put into tokens", code="no-rows"
        )

    def table(self, task: str, own: str) -> str:
        """What a task's table is called among all: two tasks may have tables of one name."""
        return f"{task}-{own}"

    def among(self, example: Example, task: str) -> Example:
        """A task's example with the tables of all tasks, the others' empty."""
        assert self._empty is not None, "encode comes first"
        tables = {n: t for name, empty in self._empty.items() for n, t in empty.items()}
        for own, table in example.targets.items():
            tables[self.table(task, own)] = table
        return replace(example, targets=tables)

    def own(self, example: Example) -> tuple[AnyObjective, Example]:
        """An example's task, and the example as that task has it by itself."""
        name = named(example.origin)
        return self.tasks[name], replace(example, targets=_of(example.targets, name))

    def arrange(self, examples: Sequence[Example], rng: np.random.Generator) -> Sequence[Example]:
        """Each task's as it arranges them, in the places where they stood."""
        none: list[Example] = []
        changing = [n for n, t in self._each if t.arrange(none, rng) is not none]
        if not changing:
            return examples
        made = list(examples)
        for name in changing:
            places = [i for i, each in enumerate(examples) if named(each.origin) == name]
            own = [self.own(examples[i])[1] for i in places]
            for i, each in zip(places, self.tasks[name].arrange(own, rng), strict=True):
                own_tables = {self.table(name, n): t for n, t in each.targets.items()}
                made[i] = replace(each, targets={**examples[i].targets, **own_tables})
        return made

    def weights(self, batch: Batch) -> dict[str, float]:
        """Each task's terms, its name before theirs."""
        return {
            f"{name}.{term}": weight
            for name, task in self._each
            for term, weight in task.weights(_batch_of(batch, name)).items()
        }

    def loss(self, models: Models, batch: Batch) -> dict[str, Tensor]:
        """Each task's terms times its coefficient; the trunk runs once for all of them."""
        assert isinstance(models.policy, ManyHeads)
        heads = models.policy.heads(batch)
        terms: dict[str, Tensor] = {}
        for name, task in self._each:
            own = task.loss(_Of(models, heads[name]), _batch_of(batch, name))
            coefficient = self.config.weights.get(name, 1.0)
            terms |= {f"{name}.{term}": coefficient * value for term, value in own.items()}
        return terms


#: Rows of a task of which one must show what its tables are.
_TRIED = 100


class _Of:
    """The models of a run with one head's as the policy."""

    def __init__(self, models: Models, policy: Any) -> None:
        self._models, self.policy = models, policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)


def _check(name: str, task: AnyObjective) -> None:
    kind = task.config.kind
    reads = [head.kind for head in task.heads]
    alone = isinstance(task, _ALONE) or task.needs_reference
    if alone or len(reads) != 1 or reads[0] not in _BESIDE:
        raise RecipeError(
            f"objective.tasks.{name}: '{kind}' needs more than a head on the trunk, and stands "
            "among no other tasks",
            cure=f"tasks read one head each: {', '.join(_BESIDE)}",
            code="pairing",
        )


def _all(names: Any) -> tuple[Any, ...]:
    """Every one once, in order."""
    return tuple(dict.fromkeys(each for some in names for each in some))


def _of(tables: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A task's tables under their own names."""
    parts = ((name.partition("-"), table) for name, table in tables.items())
    return {own: table for (of, dash, own), table in parts if dash and of == task}


def _batch_of(batch: Batch, task: str) -> Batch:
    return replace(batch, targets=_of(batch.targets, task))
