"""A recipe's objective, rows and codec as training would have them, without any weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.assemble import known_labels, make_codec, scratch_tokenizer
from luthier.core import kinds
from luthier.core.contracts import Objective, Settling
from luthier.core.errors import DataError, Fault
from luthier.core.recipe import Recipe
from luthier.core.records import Record
from luthier.data.mixture import balanced
from luthier.data.parts import Part, read_parts
from luthier.data.sides import Sides
from luthier.data.template import TokenizerCodec
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


#: How a recipe's rows are read and its objective is settled on them.
Read = Callable[[Recipe, Say], Sides]


def preview(recipe: Recipe, tokenizer: Any = None, read: Read | None = None) -> Preview:
    """One run as it would begin.

    Args:
        recipe: a recipe without stages.
        tokenizer: of a model from scratch, where an earlier stage has made it.
        read: another way to its rows than reading all of them.

    Raises:
        UserError: no such file, no such model, no row that can be read.
    """
    said: list[str] = []
    sides, faults = _read(recipe, read or _whole, said)
    if isinstance(sides.objective, Settling):
        recipe = recipe.model_copy(update={"objective": sides.objective.config})
    found = dressed(recipe, sides.objective, sides.train, tokenizer)
    return replace(found, held=sides.held, faults=faults, said=[*said, *found.said])


def settled(recipe: Recipe, objective: Objective, records: Sequence[Record]) -> Objective:
    """The objective with what it takes from the training records.

    Raises:
        UserError: no such model, or records that it cannot settle on.
    """
    if not isinstance(objective, Settling):
        return objective
    return objective.settled(records, known_labels(recipe.model))


def dressed(recipe: Recipe, objective: Objective, train: Part, tokenizer: Any = None) -> Preview:
    """The same for training records that are read already, and an objective settled on them.

    Raises:
        UserError: no such model.
    """
    said: list[str] = []
    if recipe.model.architecture is not None and tokenizer is None:
        tokenizer = scratch_tokenizer(recipe.model, train, said.append)
    if recipe.data.balance is not None:
        balanced(objective)
    head = next((each for each in objective.heads if each.kind != "lm"), None)
    loaded = skeleton(recipe.model, tokenizer, recipe.training.seed, head)
    codec = make_codec(recipe, loaded)
    said += [*loaded.said, *codec.said]
    policy = objective.overlong if recipe.data.overlong == "auto" else recipe.data.overlong
    return Preview(recipe, objective, train, None, [], loaded, codec, policy, said)


def _whole(recipe: Recipe, say: Say) -> Sides:
    objective: Objective = kinds.build("objectives", recipe.objective)
    train, held = read_parts(recipe.data, objective, recipe.training.seed, say)
    return Sides(train, held, settled(recipe, objective, train.records))


def _read(recipe: Recipe, read: Read, said: list[str]) -> tuple[Sides, list[Fault]]:
    """The rows; where training would refuse some of them, the others."""
    try:
        return read(recipe, said.append), []
    except DataError as error:
        if recipe.data.malformed == "skip":
            raise
        said.clear()
        lenient = recipe.data.model_copy(update={"malformed": "skip"})
        objective: Objective = kinds.build("objectives", recipe.objective)
        try:
            train, held = read_parts(lenient, objective, recipe.training.seed, said.append)
        except DataError:
            raise error from None
        faults = list(error.faults)
    return Sides(train, held, settled(recipe, objective, train.records)), faults
