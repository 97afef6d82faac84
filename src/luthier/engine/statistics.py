"""Figures of a whole step, which some losses need before any gradient of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from luthier.core.contracts import Models, Objective, StepStatistics
from luthier.core.records import Batch
from luthier.engine.backend import Backend


def informed(
    objective: Objective, models: Models, backend: Backend, batches: Iterable[Batch], count: int
) -> Iterable[Batch]:
    """This rank's batches with what their objective wants to know of their step.

    Args:
        objective: what asks; batches stay as they are where it does not.
        models: what it asks.
        backend: adds over ranks.
        batches: of a step, or of all that is held out.
        count: examples of the step on all ranks.
    """
    if not isinstance(objective, StepStatistics):
        return batches
    every = list(batches)
    whole = torch.tensor(backend.ranks == 1 and len(every) == 1)
    known: dict[str, Tensor] = {"examples": torch.tensor(count), "whole": whole}
    every = [replace(batch, step=known) for batch in every]
    with torch.no_grad(), backend.arithmetic():
        figures = backend.sums(objective.statistics(models, every))
    return [replace(batch, step={**known, **figures}) for batch in every]
