"""What a run folder holds, read for the report page; nothing missing or broken stops it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from luthier.core.rundir import RunDir

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a run as plain values.

    Attributes:
        name: the folder's name.
        finished: whether the run wrote its result.
        recipe: text of the recipe, ``None`` where there is none.
        settings: the same, parsed; empty where it cannot be.
        environment: versions, device, data and parameter counts.
        steps: one a logged step, in order; of a step logged twice (killed, resumed) the last.
        validations: one a validation, in order.
        warnings: what the run warned of, in order.
        drawn: answers that were sampled while training, one a logged step.
        evaluation: before and after, ``None`` where the run was not evaluated.
        samples: prompts answered before and after.
        problems: what could not be read, in words.
    """

    name: str
    finished: bool
    recipe: str | None
    settings: Fields
    environment: Fields
    steps: list[Fields]
    validations: list[Fields]
    warnings: list[Fields]
    drawn: list[Fields]
    evaluation: Fields | None
    samples: list[Fields]
    problems: list[str]


def read(run: RunDir, *, finishing: bool = False) -> Contents:
    """Everything the page shows of a run.

    Args:
        run: the run folder.
        finishing: the page is the last file but one; the card that finishes the run comes next.
    """
    problems: list[str] = []
    recipe = _text(run.recipe, problems)
    events = _lines(run.events, problems)
    environment = _object(run.environment, problems)
    return Contents(
        name=run.path.resolve().name,
        finished=finishing or run.finished,
        recipe=recipe,
        settings=_settings(recipe),
        environment=environment or {},
        steps=_by_step(events, "step"),
        validations=_by_step(events, "validation"),
        warnings=[event for event in events if event.get("kind") == "warning"],
        drawn=_by_step(events, "samples"),
        evaluation=_object(run.evaluation, problems),
        samples=_lines(run.samples, problems),
        problems=problems,
    )


def number(value: Any) -> float | None:
    """A finite number, or ``None`` for anything else that JSON can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def mapping(value: Any) -> Fields:
    """A JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _by_step(events: list[Fields], kind: str) -> list[Fields]:
    found = {
        step: event
        for event in events
        if event.get("kind") == kind and (step := number(event.get("step"))) is not None
    }
    return [found[step] for step in sorted(found)]


def _text(path: Path, problems: list[str]) -> str | None:
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        problems.append(f"{path.name} cannot be read")
        return None


def _object(path: Path, problems: list[str]) -> Fields | None:
    text = _text(path, problems)
    if text is None:
        return None
    value = _json(text)
    if value is None:
        problems.append(f"{path.name} is not a JSON object")
    return value


def _lines(path: Path, problems: list[str]) -> list[Fields]:
    # A run that was killed may leave half a line at the end; the rest of the file still counts.
    lines = [line for line in (_text(path, problems) or "").split("\n") if line.strip()]
    values = [_json(line) for line in lines]
    broken = values.count(None)
    if broken:
        noun = "line" if broken == 1 else "lines"
        problems.append(f"{broken} {noun} of {path.name} cannot be read")
    return [value for value in values if value is not None]


def _json(text: str) -> Fields | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _settings(recipe: str | None) -> Fields:
    try:
        return mapping(yaml.safe_load(recipe or ""))
    except (yaml.YAMLError, RecursionError):
        return {}
