"""Learning rates by depth and by name, as factors on the run's rate.

Layer-wise decay: the topmost block and all above it learn at the full rate, each block below at
``layer_decay`` times the rate of the one above it, the embeddings last (discriminative
fine-tuning: Howard & Ruder 2018, arXiv 1801.06146; for BERT: Sun et al. 2019, arXiv 1905.05583).
What a pattern of ``training.rates`` names is multiplied by its factor besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from itertools import pairwise
from typing import Any

from torch import nn

from luthier.core.errors import RecipeError, nearest
from luthier.core.recipe import TrainingSpec
from luthier.ops import anatomy

#: Names for parts that every architecture calls otherwise.
HEAD, EMBEDDINGS = "head", "embeddings"


def rated(
    groups: Sequence[Mapping[str, Any]], model: nn.Module, spec: TrainingSpec
) -> list[dict[str, Any]]:
    """A method's groups, divided where parameters of one group learn at different rates.

    Args:
        groups: from ``Method.param_groups``.
        model: whose parameters they are.
        spec: the recipe's training part.

    Raises:
        RecipeError: a pattern that names nothing that is trained.
    """
    if spec.layer_decay == 1 and not spec.rates:
        return [dict(group) for group in groups]
    factors = _factors([name for group in groups for name in group["names"]], model, spec)
    made = []
    for group in groups:
        parts: dict[float, list[int]] = {}
        for i, name in enumerate(group["names"]):
            parts.setdefault(factors[name], []).append(i)
        for factor, members in parts.items():
            some = {key: [group[key][i] for i in members] for key in ("params", "names")}
            made.append({**group, **some, "rate": group["rate"] * factor})
    return made


def shares(groups: Iterable[Mapping[str, Any]]) -> dict[float, int]:
    """Factor on the learning rate -> parameters that learn at it, the highest first."""
    found: dict[float, int] = {}
    for group in groups:
        count = sum(parameter.numel() for parameter in group["params"])
        found[group["rate"]] = found.get(group["rate"], 0) + count
    return dict(sorted(found.items(), reverse=True))


def described(groups: Iterable[Mapping[str, Any]], peak: float) -> str:
    """Rates and what learns at them in words; empty where all learn at one and the same."""
    found = shares(groups)
    if set(found) <= {1.0}:
        return ""
    most = [*found.items()][:6]
    said = ", ".join(f"{peak * rate:.3g} ({count:,} parameters)" for rate, count in most)
    return said + (f", and {len(found) - 6} lower ones" if len(found) > 6 else "")


def _factors(names: Sequence[str], model: nn.Module, spec: TrainingSpec) -> dict[str, float]:
    places = anatomy.places(model)
    layers = len(anatomy.blocks(model))
    chosen = dict.fromkeys(names, 1.0)
    for pattern, factor in spec.rates.items():
        matched = [name for name in names if _means(pattern, name, places[name], layers)]
        if not matched:
            raise _unmatched(pattern, names, model, places, layers)
        chosen.update(dict.fromkeys(matched, factor))
    return {
        name: chosen[name] * spec.layer_decay ** max(0, layers - places[name]) for name in names
    }


def _means(pattern: str, name: str, place: int, layers: int) -> bool:
    if pattern in (HEAD, EMBEDDINGS):
        return place == (layers + 1 if pattern == HEAD else 0)
    # A whole run of the parts of a name: `layers.1` is no part of `layers.10`.
    inner = translate(pattern).removesuffix(r"\Z").removesuffix(r"\z")
    return re.search(rf"(?:^|\.)(?:{inner})(?:\.|$)", name) is not None


def _unmatched(
    pattern: str, names: Sequence[str], model: nn.Module, places: Mapping[str, int], layers: int
) -> RecipeError:
    frozen = [
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and _means(pattern, name, places[name], layers)
    ]
    if frozen:
        return RecipeError(
            f"training.rates: '{pattern}' names {len(frozen)} parameters that are not trained",
            cure="take it out, or train them with another method",
        )
    known = {HEAD, EMBEDDINGS}
    for name in names:
        parts = name.split(".")[:-1]
        known |= {*parts} | {".".join(pair) for pair in pairwise(parts)}
    known = {each for each in known if not each.isdecimal()}
    close = nearest(pattern, known)
    if not close.startswith("did you mean"):
        plain = sorted({re.sub(r"\.\d+$", ".*", each) for each in known})
        close = "one of: " + ", ".join(plain[:24])
    return RecipeError(f"training.rates: '{pattern}' names no parameter: {close}")
