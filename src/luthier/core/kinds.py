"""From a kind's name to its module: a file in the folder of that name, or a user's own.

Nothing is listed twice: the folders are the lists. A name with a dot (``my_package.my_metric``)
is an import path to a user's own module of the same shape.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from luthier.core.contracts import KindConfig
from luthier.core.errors import RecipeError, nearest

#: Folder of the package -> the class that each module in it defines.
FOLDERS = {
    "objectives": "Objective",
    "methods": "Method",
    "metrics": "Metric",
    "rewards": "Reward",
    "data/formats": "Format",
    "data/cleaners": "Cleaner",
    "data/augmenters": "Augmenter",
    "combine": "Combination",
}

_ROOT = Path(__file__).resolve().parent.parent


class BadKindError(ValueError):
    """A kind that does not exist, as pydantic's validators can carry it."""

    def __init__(self, error: RecipeError) -> None:
        self.error = error
        super().__init__(str(error))


class BadConfigError(ValueError):
    """A kind's settings that are wrong, with the model that knows the right names."""

    def __init__(
        self, error: ValidationError, config: type[KindConfig], values: Mapping[str, Any]
    ) -> None:
        self.error, self.config, self.values = error, config, values
        super().__init__(str(error))


@cache
def names(folder: str) -> tuple[str, ...]:
    """The kinds in a folder, in order of name; modules that begin with ``_`` are not kinds."""
    files = (_ROOT / folder).glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def module(folder: str, kind: str) -> ModuleType:
    """The module of a kind.

    Raises:
        RecipeError: no such file and no such import path, or a package that it needs is missing.
    """
    if "." in kind:
        return _own(folder, kind)
    if kind not in names(folder):
        hint = nearest(kind, names(folder))
        own = "" if "did you" in hint else "a module of your own has a dot: package.module"
        raise RecipeError(f"unknown {_noun(folder)} '{kind}', {hint}", cure=own, code="kind")
    try:
        return importlib.import_module(f"luthier.{folder.replace('/', '.')}.{kind}")
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"{_noun(folder)} '{kind}' needs the package '{error.name}', which is not installed",
            cure=f"pip install {error.name}",
            code="package",
        ) from error


def config(folder: str, value: Any) -> KindConfig:
    """A kind's configuration from a recipe's value: a name, or a mapping with ``kind``.

    Raises:
        BadKindError: unknown kind, or no ``kind`` at all.
        BadConfigError: the kind's own settings are wrong.
    """
    fields = _fields(value)
    kind = fields.get("kind")
    if not isinstance(kind, str):
        choice = ", ".join(names(folder))
        reason = f"{_a_noun(folder)} is a name, or a mapping with a 'kind', one of: {choice}"
        raise BadKindError(RecipeError(reason, code="kind"))
    try:
        config_class: type[KindConfig] = module(folder, kind).Config
    except RecipeError as error:
        raise BadKindError(error) from error
    try:
        return config_class.model_validate(fields)
    except ValidationError as error:
        if any(detail["loc"] == ("kind",) for detail in error.errors()):
            reason = f"Config of module '{kind}' takes no other kind than its own"
            raise BadKindError(
                RecipeError(reason, cure="make it `kind: str`", code="import")
            ) from error
        raise BadConfigError(error, config_class, fields) from error


def build(folder: str, settings: KindConfig) -> Any:
    """The objective, method, metric, reward or format that a configuration describes."""
    return getattr(module(folder, settings.kind), FOLDERS[folder])(settings)


def summary(folder: str, kind: str) -> str:
    """First line of a kind's docstring; of one of the package's own, read without importing it."""
    if "." in kind:
        return (module(folder, kind).__doc__ or "").strip().split("\n")[0]
    text = (_ROOT / folder / f"{kind}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, KindConfig):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return dict(value) if isinstance(value, Mapping) else {"kind": value}


def _own(folder: str, path: str) -> ModuleType:
    """A user's own module; what lies in the current folder is found last.

    Raises:
        RecipeError: it cannot be imported, or lacks what a module of its folder defines.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    noun, wanted = _noun(folder), FOLDERS[folder]
    try:
        found = importlib.import_module(path)
    except Exception as error:  # whatever a user's module raises while it is imported
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        missing = isinstance(error, ModuleNotFoundError) and path.startswith(error.name or " ")
        cure = "is the module's folder on PYTHONPATH?" if missing else "import it in Python to see"
        raise RecipeError(
            f"cannot import {noun} '{path}' ({reason})", cure=cure, code="import"
        ) from error
    lacking = [
        name for name in ("Config", wanted) if not isinstance(getattr(found, name, None), type)
    ]
    if lacking:
        raise RecipeError(
            f"module '{path}' defines no class {' and no class '.join(lacking)}",
            cure=f"the module of {_a_noun(folder)} defines Config, a KindConfig, and {wanted}",
            code="import",
        )
    if not issubclass(found.Config, KindConfig):
        raise RecipeError(
            f"Config of module '{path}' is no KindConfig",
            cure="class Config(luthier.core.contracts.KindConfig)",
            code="import",
        )
    return found


def _noun(folder: str) -> str:
    return FOLDERS[folder].lower()


def _a_noun(folder: str) -> str:
    noun = _noun(folder)
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
