"""What methods share that train weights of the model itself, without an adapter beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from luthier.core.contracts import KindConfig
from luthier.methods._snapshot import Snapshot, groups_by_decay


class PlainMethod:
    """The part of :class:`luthier.core.contracts.Method` in which ``full`` and ``head`` agree."""

    def __init__(self, config: KindConfig) -> None:
        self.config = config
        self._start: Snapshot | None = None

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One group that decays, one that does not."""
        return groups_by_decay(model)

    def keep_start(self, model: nn.Module) -> None:
        """Keeps what is trained as it is at step 0 for :meth:`reference`; as large as that is."""
        self._start = Snapshot(model)

    @contextmanager
    def reference(self, model: nn.Module) -> Iterator[None]:
        """The model as it was at step 0; :meth:`keep_start` must have been called there."""
        assert self._start is not None, "keep_start was not called at step 0"
        with self._start.opened(model):
            yield

    def save(self, model: nn.Module, folder: Path) -> None:
        """The whole model in transformers' own format; a head is of no use without its trunk."""
        model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]

    def merge(self, model: nn.Module) -> nn.Module:
        """Already plain."""
        return model
