"""Partial fine-tuning: the lowest layers stay as they are, the others and the head are trained.

What lies low in a pretrained model is general: training a fourth of BERT's or RoBERTa's layers,
the last ones, keeps 90 % of what full fine-tuning gives (Lee et al. 2019, arXiv 1911.03090).
Nothing below the lowest trained layer changes, so that its output is computed once and kept.

An encoder-decoder's layers count from the encoder's first to the decoder's last: as many as the
encoder has freeze the encoder, whose output is then kept; more of them go on in the decoder, and
fewer leave the rest of the encoder trained, with nothing kept.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator
from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.core.errors import RecipeError, nearest
from luthier.methods._plain import PlainMethod
from luthier.methods._snapshot import head_names, merged, reloaded
from luthier.ops import anatomy

#: What is trained unless the recipe says.
LAST = 2


class Config(KindConfig):
    """Settings of partial fine-tuning: one of them, or none for the last two layers."""

    kind: str = "freeze"
    layers: int | None = Field(default=None, ge=0)
    """Freeze so many layers from below, and the embeddings; 0 is the embeddings alone. An encoder's
    come before its decoder's."""
    last: int | None = Field(default=None, ge=1)
    """Freeze all but the last so many layers; 2 if nothing else is said."""
    pattern: str | None = Field(default=None, min_length=1)
    """Freeze the parameters in whose name this regular expression is found."""

    @field_validator("pattern")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _one(self) -> Config:
        said = [name for name in ("layers", "last", "pattern") if getattr(self, name) is not None]
        if len(said) > 1:
            raise ValueError(f"takes one of '{said[0]}' and '{said[1]}', each says what is frozen")
        return self


class Method(PlainMethod):
    """See the module."""

    default_rate: ClassVar[float] = 2e-5

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._config = config

    def supports(self, objective: Objective) -> str | None:
        """Every objective that trains a trunk."""
        return None

    def prepare(self, model: nn.Module) -> nn.Module:
        """The lowest layers frozen and without dropout, as their cache has them; heads trained.

        An output matrix tied to the embeddings is an embedding, and frozen with them.

        Raises:
            RecipeError: more layers than the model has, or a pattern that matches nothing.
        """
        model = merged(model)
        frozen = self._frozen(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
        for head in head_names(model):
            model.get_submodule(head).requires_grad_(True)
        if depth := self.frozen_depth(model):
            anatomy.silence(anatomy.below(model, depth))
        return model

    def frozen_depth(self, model: nn.Module) -> int:
        """The layers below everything that is trained; none where an embedding is."""
        return anatomy.frozen_depth(model)

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved weights on a model of the same architecture."""
        return self.prepare(reloaded(model, folder))

    def _frozen(self, model: nn.Module) -> set[str]:
        config = self._config
        if config.pattern is not None:
            return self._matching(model, config.pattern)
        total = len(anatomy.blocks(model))
        asked = config.layers if config.layers is not None else config.last
        if asked is not None and asked > total:
            name = "layers" if config.layers is not None else "last"
            raise RecipeError(f"method.{name}: {asked}, and the model has {total} layers")
        depth = config.layers
        if depth is None:
            depth = total - min(total, LAST if config.last is None else config.last)
        return {name for name, place in anatomy.places(model).items() if place <= depth}

    def _matching(self, model: nn.Module, pattern: str) -> set[str]:
        heads = tuple(f"{name}." for name in head_names(model))
        names = [name for name, _ in model.named_parameters() if not name.startswith(heads)]
        found = {name for name in names if re.search(pattern, name)}
        if not found:
            shapes = {re.sub(r"\.\d+\.", ".0.", name).rsplit(".", 1)[0] for name in names}
            raise RecipeError(
                f"method.pattern '{pattern}' is found in no parameter's name",
                cure=nearest(pattern, shapes),
            )
        if len(found) == len(names) and not heads:
            raise RecipeError(f"method.pattern '{pattern}' freezes everything: nothing is trained")
        return found
