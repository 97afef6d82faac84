"""What a recipe says of several tasks that does not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from luthier.core.contracts_tasks import Tasked
from luthier.core.errors import nearest
from luthier.core.recipe_faults import Complaint


def eater(objective: Any, path: tuple[str | int, ...], data: Any) -> Any:
    """The objective that a source of ``data.mixture`` is for, by a path in ``data``."""
    if not isinstance(objective, Tasked) or path[0] != "mixture":
        return objective
    entry = data.mixture[path[1]]
    return objective.tasks.get(entry.task, objective)


def task_complaints(recipe: Any, objective: Any) -> Iterator[Complaint]:
    """Tasks without rows, rows without a task, and parts that know of no tasks."""
    mixture = recipe.data.mixture or ()
    if not isinstance(objective, Tasked):
        for number, entry in enumerate(mixture):
            if entry.task is not None:
                yield _complaint(
                    ("data", "mixture", number, "task"),
                    f"the objective '{recipe.objective.kind}' has no tasks",
                    "leave it out, or set objective: {kind: several, tasks: …}",
                )
        return
    if recipe.data.mixture is None and not recipe.stages:
        yield _complaint(
            ("data", "mixture"),
            "missing: the rows of several tasks come from sources that each name theirs",
            "mixture: [{source: …, task: …}, …]",
        )
    for number, entry in enumerate(mixture):
        yield from _of_entry(entry.task, ("data", "mixture", number), objective)
    named = {entry.task for entry in mixture}
    for name in objective.tasks if mixture else ():
        if name not in named:
            yield _complaint(
                ("objective", "tasks", name), "no source of data.mixture has rows for it"
            )
    yield from _unfit(recipe, objective)


def _of_entry(
    task: str | None, path: tuple[str | int, ...], objective: Tasked
) -> Iterator[Complaint]:
    if task is None:
        yield _complaint(
            (*path, "task"), f"missing: which task are its rows for? {nearest('', objective.tasks)}"
        )
    elif task not in objective.tasks:
        yield _complaint((*path, "task"), f"no task '{task}', {nearest(task, objective.tasks)}")


def _unfit(recipe: Any, objective: Any) -> Iterator[Complaint]:
    held = recipe.data.validation
    if held is not None and not isinstance(held, int | float):
        yield _complaint(
            ("data", "validation"),
            "rows of a file of their own name no task",
            "a share of every source: validation: 0.1",
        )
    if recipe.retain is not None:
        yield _complaint(("retain",), "old rows name no task", "replay them as one more source")
    if recipe.model.layers is not None:
        yield _complaint(
            ("model", "layers"), "has no meaning under several heads", "shorten the model first"
        )
    reads = {part.kind for head in objective.heads for part in head.parts}
    if recipe.model.new_tokens and reads & {"lm", "masked_lm"}:
        yield _complaint(
            ("model", "new_tokens"),
            "a vocabulary's head among several cannot grow",
            "add them in a run of that task alone first",
        )


def _complaint(path: tuple[str | int, ...], reason: str, cure: str = "") -> Complaint:
    return Complaint(path, reason, cure, "pairing", beside=("objective",))
