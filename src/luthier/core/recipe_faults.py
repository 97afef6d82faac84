"""pydantic's complaints in plain words, with the path of what is wrong and its nearest cure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from luthier.core import kinds
from luthier.core.errors import Fault, nearest
from luthier.core.recipe_yaml import COMMAND_LINE, Path_, Places, dotted
from luthier.core.settings import RefusalError, leaves


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong, by its path in the recipe.

    Attributes:
        path: keys and indices from the top.
        reason: the cause, without the path.
        cure: what to do about it, where the reason does not say.
        code: see :class:`~luthier.core.errors.Fault`.
        beside: path whose place serves where the recipe does not spell ``path`` out.
    """

    path: Path_
    reason: str
    cure: str = ""
    code: str = ""
    beside: Path_ = ()

    def fault(self, places: Places, prefix: Path_ = ()) -> Fault:
        """With its place; ``prefix`` is the path of the stage that it was found in."""
        path, where = (*prefix, *self.path), (*prefix, *self.path)
        if self.beside and path not in places.marks:
            where = (*prefix, *self.beside)
        return Fault(f"{dotted(path)}: {self.reason}", places.of(where), self.cure, self.code)


def explain(
    error: ValidationError, model: type[BaseModel], values: Any, at: Path_ = ()
) -> list[Complaint]:
    """Every complaint of one validation, those of kinds' own settings included, one a path.

    Args:
        error: pydantic's.
        model: what was validated.
        values: what it was given.
        at: path of ``values`` in the recipe.
    """
    found: list[Complaint] = []
    phrases: dict[Path_, list[tuple[str, Any]]] = {}
    for detail in error.errors(include_url=False):
        loc, inner = detail["loc"], detail.get("ctx", {}).get("error")
        path = (*at, *_real(loc, values, detail["type"]))
        if isinstance(inner, kinds.BadConfigError):
            found += explain(inner.error, inner.config, inner.values, path)
        elif isinstance(inner, kinds.BadKindError):
            fault = inner.error.faults[0]
            found.append(Complaint(path, fault.message, fault.cure, "kind"))
        elif isinstance(inner, RefusalError):
            found.append(Complaint(path, str(inner), inner.cure, "value"))
        elif detail["type"] == "extra_forbidden":
            found.append(_unknown(path, _names(model, loc[:-1])))
        elif detail["type"] == "missing" and isinstance(loc[-1], str):
            found.append(Complaint(path, "missing", code="missing"))
        else:
            phrases.setdefault(path, []).append((_phrase(dict(detail), model), detail["input"]))
    deeper = {tuple(c.path[: len(p)]) for c in found for p in phrases if len(c.path) > len(p)}
    deeper |= {p for p in phrases for q in phrases if len(q) > len(p) and q[: len(p)] == p}
    for path, said in phrases.items():
        # Of a union that one branch took for its own, only that branch's complaints count.
        if path not in deeper:
            found.append(Complaint(path, _joined([p for p, _ in said], said[0][1]), code="value"))
    return found


def faults_of(
    complaints: Iterable[Complaint],
    places: Places,
    homes: Mapping[str, str],
    prefix: Path_ = (),
) -> list[Fault]:
    """Complaints with their places, the first one of each path.

    Args:
        complaints: in the order found.
        places: where paths stand.
        homes: setting -> the part of the recipe that has it, for keys in the wrong part.
        prefix: path of the stage that the complaints are about.
    """
    first: dict[Path_, Complaint] = {}
    for complaint in complaints:
        first.setdefault(complaint.path, complaint)
    return [_hinted(c, places, homes, prefix).fault(places, prefix) for c in first.values()]


def _hinted(
    complaint: Complaint, places: Places, homes: Mapping[str, str], prefix: Path_
) -> Complaint:
    """An unknown key that another part knows, or that another kind knew."""
    if complaint.code != "unknown-key":
        return complaint
    key = str(complaint.path[-1])
    part, _, inner = key.rpartition(".")
    if homes.get(inner) == part or key in homes:
        hint = f"unknown key, did you mean '{inner}' under '{part or homes[key]}'?"
        return Complaint(complaint.path, hint, code=complaint.code)
    path = (*prefix, *complaint.path)
    if places.marks.get((*path[:-1], "kind")) == COMMAND_LINE != places.of(path):
        parent = dotted(path[:-1])
        cure = f"{parent}.kind=… keeps the file's other settings, {parent}=… replaces them"
        return Complaint(complaint.path, complaint.reason, cure, complaint.code)
    return complaint


def _real(loc: Sequence[str | int], values: Any, kind: str) -> Path_:
    """A location without the names that pydantic gives to branches of a union."""
    real: list[str | int] = []
    for number, part in enumerate(loc):
        last = number == len(loc) - 1
        if last and kind in ("missing", "extra_forbidden"):
            real += [part] if isinstance(part, str) else []
        elif isinstance(values, Mapping) and part in values:
            real.append(part)
            values = values[part]
        elif isinstance(part, int):
            real.append(part)
            values = values[part] if _has(values, part) else None
    return tuple(real)


def _has(values: Any, index: int) -> bool:
    return isinstance(values, list | tuple) and index < len(values)


def _unknown(path: Path_, known: Sequence[str]) -> Complaint:
    hint = nearest(str(path[-1]), known) if known else "nothing can be set here"
    return Complaint(path, f"unknown key, {hint}", code="unknown-key")


def _names(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Field names of the model that stands at a location below ``model``."""
    current: type[BaseModel] | None = model
    branches: list[type[BaseModel]] = []
    for part in loc:
        field = current.model_fields.get(str(part)) if current else None
        if field is not None:
            branches = list(_models_at(field.annotation))
            current = branches[0] if branches else None
        else:
            current = next((b for b in branches if b.__name__ == part), current)
    return list(current.model_fields) if current else []


def _models_at(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models of a field, those of a list's entries included."""
    yield from models_in(annotation)
    for part in (annotation, *get_args(annotation)):
        if get_origin(part) in (tuple, list):
            yield from (model for inner in get_args(part) for model in models_in(inner))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models among the types of a union."""
    for leaf in leaves(annotation):
        if isinstance(leaf, type) and issubclass(leaf, BaseModel):
            yield leaf


_TYPES = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "set": "a list",
    "frozen": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "none": "null",
    "finite": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}


def _phrase(detail: dict[str, Any], model: type[BaseModel]) -> str:
    """What a value must be, as a noun, or a whole reason that begins with a verb of its own."""
    kind, context = str(detail["type"]), detail.get("ctx", {})
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = context[name]
        return f"must be {words} {bound:g}" if bound < 1e6 else f"must be {words} {bound}"
    if kind in ("literal_error", "enum"):
        hint = _nearest_literal(str(context["expected"]), detail["input"])
        return f"must be {context['expected']}{hint}"
    if kind == "missing" or (kind in ("too_short", "too_long") and "actual_length" in context):
        bound = context.get("min_length", context.get("max_length"))
        more = "at least" if kind == "too_short" else "at most"
        return "has too few entries" if kind == "missing" else f"must have {more} {bound} entries"
    if kind in ("string_too_short", "string_too_long"):
        return "must not be empty" if context.get("min_length") == 1 else "is too short or too long"
    if kind == "model_type" and 0 < len(settings := _names(model, detail["loc"])) < 5:
        return f"must be a mapping ({', '.join(settings)})"
    if kind == "int_from_float":
        return "must be a whole number"
    if (noun := _TYPES.get(kind.split("_")[0])) and kind != "model_attributes_type":
        return f"must be {noun}"
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:]
    return message.replace("input should be", "must be").replace("input should have", "must have")


def _nearest_literal(expected: str, given: Any) -> str:
    names = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
    hint = nearest(given, names) if isinstance(given, str) else ""
    return f" ({hint})" if hint.startswith("did you mean") else ""


def _joined(phrases: Sequence[str], given: Any) -> str:
    """The branches of a union as one sentence, and what was given instead."""
    said = list(dict.fromkeys(phrases))
    first, *others = said
    sentence = first + "".join(
        f" or {other.removeprefix('must be ')}" for other in others if other.startswith("must be ")
    )
    if " this " in sentence or not sentence.startswith(("must", "has too")):
        return sentence
    return f"{sentence}, this is {shown(given)}"


def shown(value: Any) -> str:
    """A value in an error: itself where it is short, else what it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if not isinstance(value, str | int | float):
        return f"a {type(value).__name__}"
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}…"
