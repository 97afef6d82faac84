"""Full fine-tuning: every parameter is trained."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.methods._plain import PlainMethod
from luthier.methods._snapshot import merged, reloaded


class Config(KindConfig):
    """Full fine-tuning has no settings of its own."""

    kind: str = "full"


class Method(PlainMethod):
    """See the module."""

    default_rate: ClassVar[float] = 2e-5

    def supports(self, objective: Objective) -> str | None:
        """Every objective can be trained in full."""
        return None

    def prepare(self, model: nn.Module) -> nn.Module:
        """All parameters trainable, the adapter of a continued run merged first."""
        plain = merged(model)
        for parameter in plain.parameters():
            parameter.requires_grad_(True)
        return plain

    def frozen_depth(self, model: nn.Module) -> int:
        """No layer stays as it was."""
        return 0

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved weights on a model of the same architecture."""
        return reloaded(model, folder)
