"""The recipe: the typed description of one run, from YAML, a mapping, and ``key=value`` words.

Unknown keys, wrong types and impossible pairings are all found before any weight loads, together,
each with its file, line and column.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from luthier.core import kinds
from luthier.core.contracts_data import Classed
from luthier.core.errors import Fault, RecipeError, UserError
from luthier.core.recipe_evaluation import EvaluationSpec
from luthier.core.recipe_faults import Complaint, explain, faults_of, models_in, shown
from luthier.core.recipe_parts import (
    DataSpec,
    EarlyStopping,
    MethodConfig,
    ModelSpec,
    ObjectiveConfig,
    TokenizerSpec,
    TrainingSpec,
)
from luthier.core.recipe_retain import RetainSpec
from luthier.core.recipe_sources import drawing_complaints
from luthier.core.recipe_tasks import eater, task_complaints
from luthier.core.recipe_values import (
    DEFAULT_KINDS,
    ROWS,
    clean,
    comparable,
    escape,
    lay_stage,
    merge,
    normal,
    override,
    plain,
)
from luthier.core.recipe_yaml import Path_, Places, in_order, parse
from luthier.core.settings import RefusalError, Settings

__all__ = [
    "VERSION",
    "DataSpec",
    "EarlyStopping",
    "EvaluationSpec",
    "ModelSpec",
    "Recipe",
    "RetainSpec",
    "TokenizerSpec",
    "TrainingSpec",
    "load",
    "merge",
    "override",
    "schema",
    "stages",
    "validate",
]

#: Of the recipe format.
VERSION = 1
_ROWS = set(ROWS)


class Recipe(Settings):
    """One run from rows to a measured model."""

    version: Literal[1] = 1
    """Of the recipe format."""
    model: ModelSpec
    """What to start from."""
    objective: ObjectiveConfig = Field(default=DEFAULT_KINDS["objective"], validate_default=True)
    """What is optimised."""
    method: MethodConfig = Field(default=DEFAULT_KINDS["method"], validate_default=True)
    """Which parameters are trained, and how."""
    data: DataSpec = DataSpec()
    """Rows."""
    training: TrainingSpec = TrainingSpec()
    """How to train."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How to judge."""
    retain: RetainSpec | None = None
    """Old rows that the run must not forget; off unless given."""
    output: str | None = Field(default=None, min_length=1)
    """The run folder; a dated one under ``runs/`` if unset."""
    stages: tuple[dict[str, Any], ...] = ()
    """Runs in a row: each entry overrides this recipe and starts from the model before it."""

    @field_validator("version", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"must be {VERSION}")
        if isinstance(value, int) and value > VERSION:
            raise RefusalError(
                f"recipe format {value} is newer than this Luthier ({VERSION})",
                "pip install --upgrade luthier",
            )
        return value

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("retain", mode="before")
    @classmethod
    def _old_rows(cls, value: Any) -> Any:
        return {"rows": value} if isinstance(value, str | list | tuple) else value

    @field_validator("output", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe):
            return NotImplemented
        mine, theirs = (comparable(dict(each)) for each in (self, other))
        return bool(mine == theirs)

    def plain(self) -> dict[str, Any]:
        """The recipe as mappings, every default written out; rows in memory are not copied."""
        values = self.model_dump(exclude={"data": _ROWS, "stages": True})
        data: dict[str, Any] = {name: getattr(self.data, name) for name in ROWS}
        if self.data.mixture is not None:
            data["mixture"] = [dict(entry) for entry in self.data.mixture]
        return {**values, "data": {**data, **values["data"]}, "stages": list(self.stages)}

    def resolved(self) -> dict[str, Any]:
        """The recipe as JSON has it, every default written out; rows in memory are named."""
        values = self.model_dump(mode="json", exclude={"data": _ROWS, "stages": True})
        data = plain({"data": {name: getattr(self.data, name) for name in ROWS}})["data"]
        listed = plain({"stages": self.stages})["stages"]
        return {**values, "data": {**data, **values["data"]}, "stages": listed}

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, which :func:`load` reads back."""
        return yaml.safe_dump(escape(self.resolved()), sort_keys=False, allow_unicode=True)


def load(
    source: str | os.PathLike[str] | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()
) -> Recipe:
    """A recipe from a file, a mapping or itself, with ``path.to.key=value`` overrides.

    Raises:
        RecipeError: every fault found, each with its place.
    """
    values: Any
    if isinstance(source, Recipe):
        if not overrides:
            return source
        values, places = escape(source.plain()), Places("recipe")
    elif isinstance(source, Mapping):
        values, places = source, Places("recipe")
    elif isinstance(source, str | os.PathLike):
        values, places = parse(Path(source))
    else:
        raise RecipeError(f"a recipe is a file or a mapping, this is {shown(source)}")
    faults = list(places.faults)
    for word in overrides:
        try:
            values, path = override(values, word)
            places = places.overridden(path)
        except RecipeError as error:
            faults.extend(error.faults)
    values, complaints = clean(values)
    return _checked(values, places, faults, complaints)


def validate(values: Mapping[str, Any], places: Places | None = None) -> Recipe:
    """Plain data, its variables already put in, to a recipe.

    Raises:
        RecipeError: every fault found.
    """
    values, complaints = clean(escape(values))
    return _checked(values, places or Places("recipe"), (), complaints)


def stages(recipe: Recipe) -> list[dict[str, Any]]:
    """A staged recipe as one mapping a stage, each a whole recipe but for its model and output."""
    base = recipe.plain()
    made = []
    for stage in recipe.stages:
        one, complaints = _attempt(lay_stage(base, stage))
        assert one is not None, complaints
        made.append(one.plain())
    return made


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, the kinds' own settings included."""
    from luthier.core.recipe_schema import recipe_schema

    return recipe_schema(Recipe)


def _checked(
    values: Mapping[str, Any],
    places: Places,
    faults: Iterable[Fault],
    complaints: Sequence[Complaint],
) -> Recipe:
    """A recipe without any fault, its own or its stages'."""
    values = normal(values)
    recipe, found = _attempt(values)
    homes = _homes(values)
    found = [*complaints, *found]
    every = [*faults, *faults_of(found, places, homes)]
    listed = values.get("stages")
    for index, stage in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(stage, Mapping):
            own = _stage_complaints(values, stage, index, found)
            every += faults_of(own, places, homes, ("stages", index))
    if every:
        raise RecipeError.of(sorted(every, key=in_order))
    assert recipe is not None
    return recipe


def _attempt(values: Mapping[str, Any]) -> tuple[Recipe | None, list[Complaint]]:
    """A recipe, or ``None``, and everything wrong with it."""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        return None, explain(error, Recipe, values)
    return recipe, list(_pairings(recipe))


def _stage_complaints(
    base: Mapping[str, Any], stage: Mapping[str, Any], index: int, known: Sequence[Complaint]
) -> list[Complaint]:
    """What is wrong with a stage and was not wrong with the recipe that it overrides."""
    refused = {
        "stages": "a stage has no stages of its own",
        "output": "a stage's folder lies in the recipe's own output",
        "version": "the recipe's own version holds for its stages",
    }
    if index:
        refused["model"] = "a later stage starts from the model of the one before it"
    own = [
        Complaint((key,), reason, code="stage") for key, reason in refused.items() if key in stage
    ]
    rest = {key: value for key, value in stage.items() if key not in refused}
    _, found = _attempt(lay_stage(base, rest))
    old = {(complaint.path, complaint.reason) for complaint in known}
    own += [c for c in found if (c.path, c.reason) not in old or _within(rest, c.path)]
    return own


def _within(values: Any, path: Path_) -> bool:
    """Whether a path exists in plain data."""
    for part in path:
        known = values if isinstance(values, Mapping) else {}
        if isinstance(values, list):
            known = dict(enumerate(values))
        if part not in known:
            return False
        values = known[part]
    return True


def _pairings(recipe: Recipe) -> Iterable[Complaint]:
    """What is right by itself and wrong together."""
    try:
        objective = kinds.build("objectives", recipe.objective)
        method = kinds.build("methods", recipe.method)
    except UserError as error:
        yield from (Complaint((), f.message, f.cure, f.code or "kind") for f in error.faults)
        return
    if reason := method.supports(objective):
        yield Complaint(("method",), reason, code="pairing", beside=("objective",))
    if recipe.data.train is None and recipe.data.mixture is None and not recipe.stages:
        yield Complaint(
            ("data", "train"), "missing, there is nothing to learn from", code="missing"
        )
    for path, value in recipe.data.formats():
        if value == "auto":
            continue
        wanted: tuple[type, ...] = eater(objective, path, recipe.data).records
        chosen = kinds.config("data/formats", value)
        given = kinds.build("data/formats", chosen).records
        if not any(issubclass(each, wanted) for each in given):
            reads, learns = (" or ".join(t.__name__ for t in each) for each in (given, wanted))
            yield Complaint(
                ("data", *path),
                f"'{chosen.kind}' reads rows as {reads}, and the objective "
                f"'{recipe.objective.kind}' learns from {learns}",
                code="pairing",
            )
    yield from drawing_complaints(recipe.data)
    yield from task_complaints(recipe, objective)
    if recipe.data.balance is not None and not isinstance(objective, Classed):
        yield Complaint(
            ("data", "balance"),
            f"'{recipe.objective.kind}' has no classes to draw the same number of",
            code="pairing",
            beside=("objective",),
        )
    weighed = getattr(recipe.objective, "class_weights", "none")
    if recipe.data.balance is not None and weighed in ("inverse", "effective"):
        yield Complaint(
            ("data", "balance"),
            f"draws rare classes as often as the others, and objective.class_weights: {weighed} "
            "weighs them up once more",
            "choose one of them",
            "pairing",
        )
    if recipe.training.early_stopping is not None and recipe.data.validation in (None, 0):
        yield Complaint(
            ("training", "early_stopping"),
            "needs held-out rows to watch, and data.validation gives none",
            code="pairing",
        )


def _homes(values: Mapping[str, Any]) -> dict[str, str]:
    """Setting -> the part of the recipe that has it."""
    homes: dict[str, str] = {}
    for part, field in Recipe.model_fields.items():
        found = list(models_in(field.annotation))
        kind = values[part].get("kind") if isinstance(values.get(part), Mapping) else None
        if part in DEFAULT_KINDS and isinstance(kind, str):
            try:
                found = [kinds.module(f"{part}s", kind).Config]
            except RecipeError:
                continue
        for model in found:
            homes |= {name: part for name in model.model_fields if name not in homes}
    homes.pop("kind", None)
    return homes
