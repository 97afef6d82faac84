"""The seams of several tasks on one trunk: an objective of objectives, a model of heads.

The other seams are in :mod:`luthier.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from luthier.core.marks import task as task_of
from luthier.core.records import Batch, Example, Origin, Record

if TYPE_CHECKING:
    from luthier.core.contracts import HeadedModel, Objective

#: What ``overlong`` says where each task has its own answer.
BY_TASK = "task"


@runtime_checkable
class Tasked(Protocol):
    """An objective of several tasks, each an objective by itself; a row is of one of them.

    The origin of a record says its task: :func:`luthier.core.marks.task`.
    """

    @property
    def tasks(self) -> Mapping[str, Objective]:
        """Each task's objective, by name."""
        ...

    def knowing(self, known: Mapping[str, Sequence[str]]) -> Objective:
        """The same, with the class names that the model to start from has for a task."""
        ...

    def own(self, example: Example) -> tuple[Objective, Example]:
        """An example's task, and the example as that task has it by itself."""
        ...

    def among(self, example: Example, task: str) -> Example:
        """The inverse of :meth:`own`: with the tables of all tasks, the others' empty."""
        ...

    def table(self, task: str, own: str) -> str:
        """What a table of a task is called among those of all tasks."""
        ...


@runtime_checkable
class ManyHeads(Protocol):
    """A model with several heads on one trunk."""

    def heads(self, batch: Batch) -> Mapping[str, HeadedModel]:
        """Each head as a model of its own; the trunk runs once for all of them."""
        ...


def of_task(records: Sequence[Record], task: str) -> list[Record]:
    """The records of a task, in order."""
    return [record for record in records if named(record.origin) == task]


def named(origin: Origin) -> str:
    """The task of a row."""
    return task_of(origin.source)
