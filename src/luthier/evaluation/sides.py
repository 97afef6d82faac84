"""What one model made of the held-out rows, and how that is written beside another's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import astuple, dataclass, field
from typing import Any

from luthier.core.records import Scored
from luthier.evaluation.measure import likeliest


@dataclass(frozen=True)
class Side:
    """One model's scores: of every held-out example, every answered prompt, the user's own.

    And of the old rows that the run must not forget.
    """

    held: list[Scored]
    answers: list[Scored]
    own: list[Scored]
    old: list[Scored] = field(default_factory=list)

    @property
    def scored(self) -> list[Scored]:
        """All of them, in an order that both sides share."""
        return [*self.held, *self.answers]

    def of(self, files: AbstractSet[str]) -> Side:
        """Those of some files alone, the user's own left out."""
        held, answers = (
            [each for each in scored if each.origin.source in files]
            for scored in (self.held, self.answers)
        )
        return Side(held, answers, [])


def sample_lines(before: Side | None, after: Side, count: int) -> Iterator[dict[str, Any]]:
    """The user's own prompts, then answers or a classifier's first rows, side by side."""
    shown = [*after.own, *(after.answers or after.held[:count])]
    old: Sequence[Scored | None] = [None] * len(shown)
    if before is not None:
        old = [*before.own, *(before.answers or before.held[:count])]
    for a, b in zip(old, shown, strict=True):
        if b.answer is None:
            continue
        line: dict[str, Any] = {
            "prompt": b.prompt,
            "reference": b.references[0] if b.references else None,
            "before": a.answer if a else None,
            "after": b.answer,
            "origin": str(b.origin),
        }
        if b.probabilities is not None and not isinstance(b.label, float):
            line["before_probability"] = likeliest(a) if a else None
            line["after_probability"] = likeliest(b)
        yield line


def score_lines(sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Per held-out example and model: summed loss, tokens, bytes, right tokens; or classes."""
    lines = []
    for name, side in sides.items():
        for item in side.held:
            line: dict[str, Any] = {"model": name, "origin": str(item.origin)}
            if item.probabilities is not None:
                line["label"] = item.references[0] if item.references else None
                line["predicted"] = item.answer
                line["probabilities"] = [round(float(p), 6) for p in item.probabilities]
            elif item.rank is not None:
                line["rank"] = item.rank
            elif item.scores is not None:
                line["scores"] = [round(float(score), 6) for score in item.scores]
            else:
                assert item.losses is not None
                assert item.correct is not None
                line["nll"] = float(item.losses.sum())
                line["tokens"] = len(item.losses)
                line["bytes"] = item.bytes
                line["correct"] = int(item.correct.sum())
            if item.said_spans is not None:
                line["entities"] = [list(astuple(each)) for each in item.spans or ()]
                line["predicted"] = [list(astuple(each)) for each in item.said_spans]
            lines.append(line)
    return lines
