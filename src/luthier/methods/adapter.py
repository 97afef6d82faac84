"""Bottleneck adapters: a few trained layers inside frozen blocks.

``h + U f(D h)`` behind a sub-layer, ``U`` zero at the start: behind attention and feed-forward
(Houlsby et al. 2019, arXiv 1902.00751; a decoder that reads an encoder has two attentions) or the
feed-forward alone (Pfeiffer et al. 2021, arXiv 2005.00247). Of an encoder-decoder both stacks have
them. What is saved is the adapter and a fresh head; see :mod:`luthier.ops.bottleneck`, also for
several side by side on one model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.core.errors import RecipeError
from luthier.methods._snapshot import Snapshot, groups_by_decay, head_names, merged
from luthier.ops.bottleneck import DEFAULT, Activation, Adapters, Placement, Shape, has_adapters
from luthier.ops.bottleneck import refuse as refuse_merging


class Config(KindConfig):
    """Settings of bottleneck adapters."""

    kind: str = "adapter"
    placement: Placement = "pfeiffer"
    """``pfeiffer``: behind the feed-forward of every block; ``houlsby``: behind attention too."""
    reduction_factor: float = Field(default=16.0, gt=0)
    """The hidden size over the width of the bottleneck."""
    activation: Activation = "gelu"
    """The nonlinearity between its two matrices."""
    layer_norm: bool = False
    """A norm of its own on what the bottleneck reads."""


class Method:
    """See the module."""

    default_rate: ClassVar[float] = 1e-3

    def __init__(self, config: Config) -> None:
        self.config = config
        self._start: Snapshot | None = None
        self._identity = True

    @property
    def shape(self) -> Shape:
        """What the recipe asks for."""
        c = self.config
        return Shape(c.placement, c.reduction_factor, c.activation, c.layer_norm)

    def supports(self, objective: Objective) -> str | None:
        """Every objective that trains a trunk."""
        return None

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model with an adapter in every block, and nothing else but a head trainable.

        Raises:
            UserError: blocks that are not understood, or an adapter of another shape to continue.
        """
        if has_adapters(model):
            self._continue(model)
        else:
            model = merged(model)
            Adapters.of(model).add(DEFAULT, self.shape)
        return self._trained(model)

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One group that decays, one that does not."""
        return groups_by_decay(model)

    def frozen_depth(self, model: nn.Module) -> int:
        """Adapters sit in every layer, so no trunk stays as it was."""
        return 0

    def keep_start(self, model: nn.Module) -> None:
        """Keeps what was trained at step 0 where switching the adapter off is not the same."""
        self._start = None if self._identity and not head_names(model) else Snapshot(model)

    @contextmanager
    def reference(self, model: nn.Module) -> Iterator[None]:
        """The base where the adapter started as the identity, else the adapter of step 0."""
        opened = Adapters.of(model).disabled() if self._start is None else self._start.opened(model)
        with opened:
            yield

    def save(self, model: nn.Module, folder: Path) -> None:
        """The adapter, with the head that was trained with it."""
        Adapters.of(model).save(folder)

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved adapter, trainable, on a base model."""
        Adapters.of(model).load(folder)
        return self._trained(model)

    def merge(self, model: nn.Module) -> nn.Module:
        """Refused.

        Raises:
            UserError: no matrix computes what a bottleneck with a nonlinearity does.
        """
        refuse_merging(model)
        return model

    def _trained(self, model: nn.Module) -> nn.Module:
        adapters = Adapters.of(model)
        adapters.activate(adapters.active or DEFAULT)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in adapters.parameters(adapters.active or DEFAULT).values():
            parameter.requires_grad_(True)
        for name in head_names(model):
            model.get_submodule(name).requires_grad_(True)
        return model

    def _continue(self, model: nn.Module) -> None:
        adapters = Adapters.of(model)
        [name] = adapters.shapes
        old, wanted = asdict(adapters.shapes[name]), asdict(self.shape)
        differing = [
            f"{key} {old[key]} (the adapter) / {wanted[key]} (the recipe)"
            for key in old
            if old[key] != wanted[key]
        ]
        if differing:
            raise RecipeError(
                "the run continues an adapter of another shape: " + "; ".join(differing),
                cure="set method to the adapter's shape, or start from its base",
            )
        self._identity = False
