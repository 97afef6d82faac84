"""Full fine-tuning: every parameter is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.methods._snapshot import Snapshot, groups_by_decay, merged, reloaded


class Config(KindConfig):
    """Full fine-tuning has no settings of its own."""

    kind: str = "full"


class Method:
    """See the module."""

    default_rate: ClassVar[float] = 2e-5

    def __init__(self, config: Config) -> None:
        self.config = config
        self._start: Snapshot | None = None

    def supports(self, objective: Objective) -> str | None:
        """Every objective can be trained in full."""
        return None

    def prepare(self, model: nn.Module) -> nn.Module:
        """All parameters trainable, the adapter of a continued run merged first."""
        plain = merged(model)
        for parameter in plain.parameters():
            parameter.requires_grad_(True)
        return plain

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One group that decays, one that does not."""
        return groups_by_decay(model)

    def frozen_depth(self, model: nn.Module) -> int:
        """No layer stays as it was."""
        return 0

    def keep_start(self, model: nn.Module) -> None:
        """Keeps the weights of step 0 for :meth:`reference`; as large as the model."""
        self._start = Snapshot(model)

    @contextmanager
    def reference(self, model: nn.Module) -> Iterator[None]:
        """The model as it was at step 0; :meth:`keep_start` must have been called there."""
        assert self._start is not None, "keep_start was not called at step 0"
        with self._start.opened(model):
            yield

    def save(self, model: nn.Module, folder: Path) -> None:
        """Full weights in transformers' own format."""
        model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved weights on a model of the same architecture."""
        return reloaded(model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        """Already plain."""
        return model
