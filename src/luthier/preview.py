"""A recipe's objective, rows and codec as training would have them, without any weight."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from luthier import companions
from luthier.assemble import scratch_tokenizer, settled
from luthier.codecs import make_codec
from luthier.core import kinds
from luthier.core.contracts import POLICY_HEADS, Objective
from luthier.core.contracts_beside import Answered
from luthier.core.contracts_text import Tokenized
from luthier.core.errors import DataError, Fault
from luthier.core.recipe import DataSpec, Recipe
from luthier.data.mixture import balanced
from luthier.data.parts import Part, read_parts
from luthier.data.template import TokenizerCodec
from luthier.data_models import OpenedModels
from luthier.models.load import Loaded
from luthier.models.skeleton import skeleton

Say = Callable[[str], None]


@dataclass(frozen=True)
class Preview:
    """What a run would begin with.

    Attributes:
        recipe: with the objective's settings as the rows settle them.
        objective: what would be optimised.
        train: the training records.
        held: the held-out ones.
        faults: what training would refuse in the files themselves.
        loaded: the model's shape, and its tokenizer.
        codec: turns to tokens and back.
        policy: what becomes of overlong examples.
        said: how data and template were understood.
        companions: teachers and the like, without their weights.
    """

    recipe: Recipe
    objective: Objective
    train: Part
    held: Part | None
    faults: list[Fault]
    loaded: Loaded
    codec: TokenizerCodec
    policy: str
    said: list[str]
    companions: Mapping[str, companions.Seen] = field(default_factory=dict)


#: A way to a recipe's rows, as :func:`luthier.data.parts.read_parts` is one.
Read = Callable[[DataSpec, Objective, int, Say, OpenedModels], tuple[Part, Part | None]]


def preview(recipe: Recipe, tokenizer: Any = None, read: Read = read_parts) -> Preview:
    """One run as it would begin.

    Args:
        recipe: a recipe without stages.
        tokenizer: of a model from scratch, where an earlier stage has made it.
        read: the way to its rows.

    Raises:
        UserError: no such file, no such model, no row that can be read.
    """
    objective: Objective = kinds.build("objectives", recipe.objective)
    said: list[str] = []
    (train, held), faults = _read(recipe, objective, said, read)
    found = dressed(recipe, objective, train, tokenizer)
    return replace(found, held=held, faults=faults, said=[*said, *found.said])


def dressed(recipe: Recipe, objective: Objective, train: Part, tokenizer: Any = None) -> Preview:
    """The same for training records that are read already.

    Raises:
        UserError: no such model, or records that the objective cannot settle on.
    """
    said: list[str] = []
    if recipe.model.architecture is not None and tokenizer is None:
        tokenizer = scratch_tokenizer(recipe.model, train, said.append)
    recipe, objective = settled(recipe, objective, train)
    if recipe.data.balance is not None:
        balanced(objective)
    seen = companions.look(recipe, objective)
    said += [each.words for each in seen.values()]
    if isinstance(objective, Answered):
        said.append(f"'{objective.answerer}' will answer the training prompts; here are the rows'")
    head = next((each for each in objective.heads if each.kind not in POLICY_HEADS), None)
    loaded = skeleton(recipe.model, tokenizer, recipe.training.seed, head)
    codec = make_codec(recipe, loaded)
    if isinstance(objective, Tokenized):
        objective = objective.with_codec(codec)
    said += [*loaded.said, *codec.said]
    policy = objective.overlong if recipe.data.overlong == "auto" else recipe.data.overlong
    return Preview(recipe, objective, train, None, [], loaded, codec, policy, said, seen)


def _aloud(line: str) -> None:
    """What is said of a preview is said when it is done; what leaves the machine, before."""
    print(line, file=sys.stderr, flush=True)


def _read(
    recipe: Recipe, objective: Objective, said: list[str], read: Read
) -> tuple[tuple[Part, Part | None], list[Fault]]:
    """The rows; where training would refuse some of them, the others."""
    spec, seed = recipe.data, recipe.training.seed
    models = OpenedModels(recipe.training.device, aloud=_aloud)
    try:
        return read(spec, objective, seed, said.append, models), []
    except DataError as error:
        if spec.malformed == "skip":
            raise
        said.clear()
        lenient = spec.model_copy(update={"malformed": "skip"})
        try:
            return read_parts(lenient, objective, seed, said.append, models), list(error.faults)
        except DataError:
            raise error from None
