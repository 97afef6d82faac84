"""A model on held-out answers: what it says each is worth, by the objective's own measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from luthier.core.contracts import FrozenColumns, LanguageModel
from luthier.core.contracts_scores import Scoring
from luthier.core.records import Example, Record, Scored
from luthier.data import contents
from luthier.evaluation.measure import batches
from luthier.models.trunk import TrunkModel


@dataclass(frozen=True)
class Alone:
    """The models of a run that is over: one."""

    policy: Any
    companions: Mapping[str, LanguageModel] = field(default_factory=dict)

    def reference(self) -> AbstractContextManager[LanguageModel]:
        """What it was at step 0 is a column of the examples."""
        raise AssertionError("evaluation asks for no live reference")


def with_columns(
    model: TrunkModel, objective: FrozenColumns, examples: Sequence[Example]
) -> list[Example]:
    """Examples with what the model of step 0 says of them."""
    made = list(examples)
    for indices, batch in batches(model, examples):
        found = objective.columns(Alone(model), batch)
        for number, index in enumerate(indices):
            tables = {head: dict(table) for head, table in examples[index].targets.items()}
            for head, columns in found.items():
                mine = batch.targets[head]["example"] == number
                for name, column in columns.items():
                    tables[head][name] = column[mine].cpu().numpy()
            made[index] = replace(examples[index], targets=tables)
    return made


def score_preferences(
    model: TrunkModel,
    objective: Scoring,
    examples: Sequence[Example],
    records: Mapping[Any, Record],
) -> list[Scored]:
    """Of every example what its answers are worth, and how long they are, in order.

    Args:
        model: in its world.
        objective: whose measure it is.
        examples: with all columns.
        records: by origin, for those whose answers are to be shown; of a model that writes its
            own none.
    """
    results: dict[int, Scored] = {}
    for indices, batch in batches(model, examples):
        table = batch.targets[objective.table]
        values = objective.scores(Alone(model), batch).double().cpu().numpy()
        lengths = torch.tensor(batch.segments.lengths)[table["segment"].cpu()].numpy()
        owner = table["example"].cpu().numpy()
        for number, index in enumerate(indices):
            mine = owner == number
            results[index] = _scored(
                examples[index], objective.table, values[mine], lengths[mine], records
            )
    return [results[i] for i in range(len(examples))]


def _scored(
    example: Example,
    table: str,
    scores: Any,
    lengths: Any,
    records: Mapping[Any, Record],
) -> Scored:
    good = example.targets[table].get("good")
    found = Scored(
        example.origin,
        scores=scores,
        lengths=lengths,
        label=None if good is None else int(good[0]),
    )
    record = records.get(example.origin)
    if record is None:
        return found
    said = contents.answers(record)
    return replace(
        found,
        prompt=contents.prompt(record),
        answer=said[int(np.argmax(scores))],
        references=said[:1],
    )
