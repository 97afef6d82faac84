"""Activations of a frozen trunk, computed once: what a head reads, row by row.

``R`` rows of a head's table, ``H`` hidden size. A row's pooled state takes the place of the text
it came from, so every epoch after the first pass costs what the head alone costs. Kept under the
user's cache by the hash of weights, tokens and arithmetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from luthier.core import cache
from luthier.core.contracts import HeadedModel
from luthier.core.records import Batch, Example

#: The column that carries a row's activations.
COLUMN = "state"
_FILE = "states.npy"

Rows = npt.NDArray[np.floating[Any]]


def trunk_key(module: nn.Module) -> str:
    """Hash of every weight that stays as it is."""
    found = hashlib.sha256()
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            found.update(name.encode())
            found.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    for name, buffer in module.named_buffers():
        found.update(name.encode())
        found.update(buffer.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def activations(
    examples: Sequence[Example],
    head: str,
    model: HeadedModel,
    cut: Callable[[Sequence[int]], list[list[int]]],
    collate: Callable[[Sequence[Example]], Batch],
    place: Path,
) -> Rows:
    """Pooled states ``[R, H]`` of every row of a head's table, in the examples' order.

    Args:
        examples: what the head learns from.
        head: name of the table.
        model: its trunk is run once over every example, in evaluation mode.
        cut: sizes to micro-batches.
        collate: examples to a batch on the device.
        place: entry of the cache to keep them in; read where it is there.
    """
    if not place.is_dir():
        rows = _computed(examples, head, model, cut, collate)
        with cache.made(place) as folder:
            np.save(folder / _FILE, rows, allow_pickle=False)
    return cast("Rows", np.load(place / _FILE, mmap_mode="r", allow_pickle=False))


def _computed(
    examples: Sequence[Example],
    head: str,
    model: HeadedModel,
    cut: Callable[[Sequence[int]], list[list[int]]],
    collate: Callable[[Sequence[Example]], Batch],
) -> Rows:
    # What a row reads: a whole segment, or one token.
    place = "position" if "position" in examples[0].targets[head] else "segment"
    counts = [len(example.targets[head][place]) for example in examples]
    starts = np.cumsum([0, *counts])
    made: Rows | None = None
    training = model.module.training
    model.module.eval()
    with torch.no_grad():
        for indices in cut([example.size for example in examples]):
            if not indices:
                continue
            batch = collate([examples[i] for i in indices])
            pooled = model.pooled(batch, model.hidden(batch), batch.targets[head][place])
            wide = torch.promote_types(pooled.dtype, torch.float32)
            found = pooled.to(wide).cpu().numpy()
            if made is None:
                made = np.empty((int(starts[-1]), found.shape[1]), dtype=found.dtype)
            at = 0
            for i in indices:
                made[starts[i] : starts[i + 1]] = found[at : at + counts[i]]
                at += counts[i]
    model.module.train(training)
    assert made is not None, "no example"
    return made


class CachedTrunk:
    """A model whose examples bring their pooled states along.

    Args:
        model: the model; only its head is run.
        head: name of the table with the column :data:`COLUMN`.
    """

    def __init__(self, model: HeadedModel, head: str) -> None:
        self._model, self._head = model, head

    @property
    def module(self) -> nn.Module:
        """The torch module."""
        return self._model.module

    def hidden(self, batch: Batch) -> Tensor:
        """The pooled states ``[R, H]`` in place of the tokens' states."""
        return cast("Tensor", batch.targets[self._head][COLUMN])

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        """They are pooled already."""
        assert len(segments) == len(hidden), "a row without its activations"
        return hidden

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        """The head on them."""
        assert head == self._head, head
        return self._model.outputs(head, rows)

    def nll(self, batch: Batch, hidden: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Only pooled states are cached."""
        raise AssertionError("a cached trunk has no language-model head")

    def logprobs(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Only pooled states are cached."""
        raise AssertionError("a cached trunk has no language-model head")

    def logits(self, rows: Tensor) -> Tensor:
        """Only pooled states are cached."""
        raise AssertionError("a cached trunk has no language-model head")


class CachedTrunks:
    """The same of a model with several heads.

    Args:
        model: the model; only its heads are run.
        head: what they are.
    """

    def __init__(self, model: Any, head: Any) -> None:
        self._model, self._parts = model, head.parts

    @property
    def module(self) -> nn.Module:
        """The torch module."""
        return cast("nn.Module", self._model.module)

    def heads(self, batch: Batch) -> Mapping[str, CachedTrunk]:
        """Each head on the states that its own table brings along."""
        return {p.name: CachedTrunk(self._model.view(p.name), p.kind) for p in self._parts}
