"""Models combined after training: one from several that were tuned from the same base.

One file a way of combining full weights: its module has ``Config`` and ``Combination``, which is
given each tensor of all models and gives one. Adapters on one base are summed exactly, see
:mod:`luthier.combine._adapters`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.combine import _adapters, _full
from luthier.core import kinds
from luthier.core.contracts import KindConfig
from luthier.core.contracts_weights import Combination
from luthier.core.errors import RecipeError
from luthier.models.load import Where, locate

Say = Callable[[str], None]


@dataclass(frozen=True)
class Combined:
    """What a combination made.

    Attributes:
        folder: where it lies; it loads as any model.
        kind: ``adapter`` or ``full weights``.
        tensors: how many were combined.
        weights: each model's, in order.
    """

    folder: Path
    kind: str
    tensors: int
    weights: tuple[float, ...]


def ways() -> tuple[str, ...]:
    """How full weights can be combined."""
    return kinds.names("combine")


def combine(
    models: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    weights: Sequence[float] | None = None,
    method: str | Mapping[str, Any] = "average",
    base: str | None = None,
    say: Say = print,
) -> Combined:
    """One model from several.

    Args:
        models: runs or folders, all adapters on one base or all full weights of one architecture.
        output: a new or empty folder.
        weights: one a model; even if unset.
        method: one of :func:`ways`, with settings as ``{"kind": "ties", "keep": 0.3}``.
        base: what all were tuned from, where a method asks and their notes do not say.
        say: takes a line for the user.

    Raises:
        RecipeError: models that do not belong together, with the reason.
    """
    config = _config(method)
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RecipeError(f"'{folder}' is not empty", cure="choose another: --output DIR")
    shares = _shares(models, weights)
    places = [_local(str(model)) for model in models]
    adapters = [place.kind == "adapter" for place in places]
    if any(adapters) and not (all(adapters) and config.kind == "average"):
        reason = (
            f"'{config.kind}' works on full weights, and adapters are summed"
            if all(adapters)
            else f"'{models[adapters.index(True)]}' is an adapter, "
            f"'{models[adapters.index(False)]}' has full weights"
        )
        raise RecipeError(
            f"cannot combine: {reason}", cure="luthier export RUN --to merged, for each adapter"
        )
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    folders = [Path(place.name) for place in places]
    try:
        if all(adapters):
            count = _adapters.combine(folders, shares, temporary, say)
        else:
            way: Combination = kinds.build("combine", config)
            count = _full.combine(folders, shares, way, base, temporary, say)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Combined(folder, "adapter" if all(adapters) else "full weights", count, shares)


def _config(method: str | Mapping[str, Any]) -> KindConfig:
    try:
        return kinds.config("combine", method)
    except kinds.BadKindError as error:
        raise error.error from None
    except kinds.BadConfigError as error:
        first = error.error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        kind = error.values["kind"]
        raise RecipeError(f"'{kind}' and its setting '{name}': {first['msg']}") from None


def _shares(models: Sequence[Any], weights: Sequence[float] | None) -> tuple[float, ...]:
    if len(models) < 2:
        raise RecipeError("combining takes two models or more", code="usage")
    if weights is None:
        return (1 / len(models),) * len(models)
    if len(weights) != len(models):
        raise RecipeError(
            f"{len(models)} models and {len(weights)} weights", cure="one weight for each model"
        )
    return tuple(float(weight) for weight in weights)


def _local(name: str) -> Where:
    place = locate(name)
    if place.kind == "hub":
        raise RecipeError(
            f"'{name}' is no folder here", cure="combine runs or folders; download it first"
        )
    return place
