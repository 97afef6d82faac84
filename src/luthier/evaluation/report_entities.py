"""What the report page shows of a model that marks entities: each type of them."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.evaluation.report_classes import ClassRow, weakest
from luthier.evaluation.report_data import Fields, mapping, number


@dataclass(frozen=True, slots=True)
class Entities:
    """The section.

    Attributes:
        rows: the types, the weakest first.
        before: whether any has a figure before training.
        more: which types the table leaves out, in words.
    """

    rows: tuple[ClassRow, ...]
    before: bool
    more: str


def entities(evaluation: Fields | None) -> Entities | None:
    """The section of a token classifier's evaluation; ``None`` for anything else."""
    figures = mapping(mapping(evaluation).get("entities")).get("per_type")
    per_type = [mapping(one) for one in figures] if isinstance(figures, list) else []
    known = [one for one in per_type if number(one.get("f1")) is not None]
    if not known:
        return None
    rows, more = weakest(known, "type", "entity")
    before = any(number(one.get("f1_before")) is not None for one in known)
    return Entities(tuple(rows), before, more)
