"""A recipe as plain data, before it is checked: variables, overrides, stages laid on a base."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from luthier.core.errors import RecipeError
from luthier.core.recipe_faults import Complaint
from luthier.core.recipe_yaml import (
    COMMAND_LINE,
    MAX_DEPTH,
    MAX_NODES,
    Path_,
    dotted,
    parse_value,
)

#: What a recipe means that does not say; a plain string in these places is the kind's name.
DEFAULT_KINDS = {"objective": "sft", "method": "lora"}
#: Where rows may stand; nothing in here looks into them.
SOURCES = ("train", "validation")
#: Everything of ``data`` in which rows may stand.
ROWS = (*SOURCES, "mixture")
#: Keys that say what a mapping is; one that changes makes the rest of the old mapping void.
_IDENTITY = ("kind", "name", "architecture")

_VARIABLE = re.compile(r"\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def clean(values: Any) -> tuple[Any, list[Complaint]]:
    """Plain data with variables put in, and what no part of a recipe may hold.

    ``${NAME}`` in a string is the environment variable's value, ``$${NAME}`` the text itself.
    Parts of a recipe given as models become mappings; rows in memory are left as they are.

    Args:
        values: from a file or a caller; nothing in it is changed.

    Returns:
        A copy, and complaints about unset variables, keys that are no names, infinite numbers.

    Raises:
        RecipeError: nested deeper, or larger, than any recipe.
    """
    walk = _Clean()
    return walk.visit(values, ()), walk.complaints


def escape(value: Any, path: Path_ = ()) -> Any:
    """The inverse of putting variables in, for values that will be cleaned again."""
    if isinstance(value, str):
        return _VARIABLE.sub(r"$\g<0>", value)
    if is_source(path) and not _is_paths(value):
        return value
    if isinstance(value, Mapping):
        return {key: escape(inner, (*path, key)) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return [escape(inner, (*path, i)) for i, inner in enumerate(value)]
    return value


def override(values: Any, word: str) -> tuple[Any, Path_]:
    """One ``path.to.key=value`` laid on plain data; the value is read as YAML.

    Args:
        values: not changed.
        word: a number in the path is an index of a list (``stages.0.training.epochs=1``).

    Returns:
        The new data, and the path that was set.

    Raises:
        RecipeError: no ``=`` in the word, or a path through something that is no mapping.
    """
    path, equals, text = word.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names) or len(names) > MAX_DEPTH:
        raise RecipeError(
            f"'{word}' is no override", COMMAND_LINE, "write path.to.key=value", "override"
        )
    return _set(values, names, parse_value(text, word), word, ())


def normal(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same recipe with kinds and model as mappings; an empty part is one left out."""
    result = {key: value for key, value in values.items() if value is not None}
    for field, default in DEFAULT_KINDS.items():
        kind = result.setdefault(field, default)
        result[field] = {"kind": kind} if isinstance(kind, str) else kind
    if isinstance(result.get("model"), str):
        result["model"] = {"name": result["model"]}
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, mapping by mapping.

    What is no mapping in both is replaced, lists included. A mapping that names another kind or
    another model starts afresh.

    >>> merge({"method": {"kind": "lora", "rank": 8}}, {"method": {"rank": 4}})
    {'method': {'kind': 'lora', 'rank': 4}}
    >>> merge({"method": {"kind": "lora", "rank": 8}}, {"method": {"kind": "full"}})
    {'method': {'kind': 'full'}}
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not _afresh(old, value):
            value = merge(old, value)
        merged[key] = value
    return merged


def lay_stage(base: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage laid on the recipe it stands in; names of kinds and models may be plain strings."""
    over = dict(stage)
    for field in DEFAULT_KINDS:
        if isinstance(over.get(field), str):
            over[field] = {"kind": over[field]}
    if isinstance(over.get("model"), str):
        over["model"] = {"name": over["model"]}
    rest = {key: value for key, value in base.items() if key not in ("stages", "output")}
    return merge(_other_source(normal(rest), over.get("data")), over)


def _other_source(base: dict[str, Any], data: Any) -> dict[str, Any]:
    """``base`` without its mixture where a stage names ``train``, and the other way round."""
    if not isinstance(data, Mapping) or not isinstance(base.get("data"), Mapping):
        return base
    void: tuple[str, ...] = ()
    if data.get("train") is not None:
        void = ("mixture", "temperature", "epoch_length")
    elif data.get("mixture") is not None:
        void = ("train",)
    return {**base, "data": {k: v for k, v in base["data"].items() if k not in void}}


def is_source(path: Path_) -> bool:
    """Whether rows may stand at a path: ``data.train``, ``data.mixture.0.source``, in a stage."""
    if path[-1:] == ("source",) and path[-4:-2] == ("data", "mixture"):
        return len(path) in (4, 6)
    return path[-2:-1] == ("data",) and path[-1] in SOURCES and len(path) in (2, 4)


def name_source(value: Any) -> Any:
    """A source by name: paths as text, rows in memory by their number."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if _is_paths(value):
        return [os.fspath(v) for v in value]
    try:
        return f"<{len(value)} rows in memory>"
    except TypeError:
        return "<rows in memory>"


def comparable(value: Any, path: Path_ = ()) -> Any:
    """A value whose rows in memory are compared by identity: a frame's ``==`` is another frame."""
    if path[-2:-1] == ("mixture",):
        value = _opened(value)
    if is_source(path) and name_source(value) is not value and not _is_paths(value):
        return ("rows", id(value))
    if isinstance(value, Mapping):
        return {key: comparable(inner, (*path, key)) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return [comparable(inner, (*path, i)) for i, inner in enumerate(value)]
    return value


def plain(value: Any, path: Path_ = ()) -> Any:
    """A value as JSON has it, rows in memory named."""
    value = _opened(value)
    if is_source(path):
        return name_source(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, (*path, key)) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return [plain(inner, (*path, i)) for i, inner in enumerate(value)]
    return value


def _is_paths(value: Any) -> bool:
    listed = type(value) in (list, tuple)
    return listed and all(isinstance(each, str | os.PathLike) for each in value)


def _afresh(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return any(key in new and new[key] != old.get(key) for key in _IDENTITY)


def _set(at: Any, names: Sequence[str], value: Any, word: str, done: Path_) -> tuple[Any, Path_]:
    """``at`` with ``value`` at the path ``names`` below it."""
    if not names:
        return value, done
    at, part = _opened(at), done[-1] if len(done) in (1, 3) else None
    if isinstance(at, str) and part in (*DEFAULT_KINDS, "model"):
        at = {"name" if part == "model" else "kind": at}
    if at is None and len(done) == 1 and part in DEFAULT_KINDS and names[0] != "kind":
        at = {"kind": DEFAULT_KINDS[str(part)]}
    if type(at) is list and names[0].isdecimal() and int(names[0]) < len(at):
        index = int(names[0])
        inner, path = _set(at[index], names[1:], value, word, (*done, index))
        return [*at[:index], inner, *at[index + 1 :]], path
    if not isinstance(at, Mapping | None):
        lacks = f"a list of {len(at)} without '{names[0]}'" if type(at) is list else "no mapping"
        raise RecipeError(f"'{word}': '{dotted(done)}' is {lacks}", COMMAND_LINE, code="override")
    at = dict(at or {})
    at[names[0]], path = _set(at.get(names[0]), names[1:], value, word, (*done, names[0]))
    return at, path


def _opened(value: Any) -> Any:
    """A part of a recipe given as a model as a mapping of its fields, a path as text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return value


def _is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair is in it, which no file can hold."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


class _Clean:
    """One walk over a recipe's plain data; see :func:`clean`."""

    def __init__(self) -> None:
        self.complaints: list[Complaint] = []
        self.nodes = 0

    def visit(self, value: Any, path: Path_) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise RecipeError("nested deeper, or larger, than any recipe", code="size")
        value = _opened(value)
        if isinstance(value, str):
            return self._text(value, path)
        if is_source(path):
            if not _is_paths(value):
                return value
            return [self._text(os.fspath(v), (*path, i)) for i, v in enumerate(value)]
        if isinstance(value, Mapping):
            return {
                key: self.visit(inner, (*path, key))
                for key, inner in value.items()
                if self._is_name(key, path)
            }
        if type(value) in (list, tuple):
            return [self.visit(inner, (*path, i)) for i, inner in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            self.complaints.append(
                Complaint(path, f"must be a finite number, this is {value}", code="value")
            )
        return value

    def _is_name(self, key: Any, path: Path_) -> bool:
        if isinstance(key, str) and _is_unicode(key):
            return True
        self.complaints.append(
            Complaint(path, f"{key!r:.60} is no name for a setting", code="value")
        )
        return False

    def _text(self, value: str, path: Path_) -> str:
        if not _is_unicode(value):
            self.complaints.append(Complaint(path, "must be text in UTF-8", code="value"))
            return value.encode("utf-8", "replace").decode()

        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            if match.group().startswith("$$"):
                return match.group()[1:]
            if name not in os.environ:
                self.complaints.append(
                    Complaint(
                        path,
                        f"the variable {name} is not set",
                        f"export {name}=…, or write $${{{name}}} for the text itself",
                        "variable",
                    )
                )
            return os.environ.get(name, match.group())

        return _VARIABLE.sub(replace, value)
