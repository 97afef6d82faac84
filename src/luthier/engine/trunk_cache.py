"""What a frozen trunk gives, computed once and kept on disk, example by example.

``R`` rows of a head's table, ``T`` tokens of an example, ``H`` hidden size. Where the whole trunk
stays as it is, a row's pooled state takes the place of its text, and every later epoch costs what
the head alone costs; where the lowest layers do, every token's state after them is kept, and the
layers above run on it. Entries of the user's cache go by the hash of weights, tokens and
arithmetic.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn

from luthier.core import cache
from luthier.core.contracts import HeadedModel
from luthier.core.records import Batch, Example

#: The column that carries activations.
COLUMN = "state"
_FILE = "states.npy"
#: Of a config, what no state depends on.
_UNFELT = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type",
    "transformers_version",
}  # fmt: skip
#: Examples that are computed in one go: neighbours, so that a file is written along its length.
_STRETCH = 1024

Rows = npt.NDArray[np.floating[Any]]
Cut = Callable[[Sequence[int]], list[list[int]]]
Collate = Callable[[Sequence[Example]], Batch]


def trunk_key(module: nn.Module) -> str:
    """Hash of every weight that stays as it is."""
    found = hashlib.sha256()
    fixed = [(n, p) for n, p in module.named_parameters() if not p.requires_grad]
    for name, tensor in (*fixed, *module.named_buffers()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def shape_key(config: Any) -> str:
    """Hash of an architecture's settings (rotary base, windows) that no weight shows."""
    settings = {name: value for name, value in config.to_dict().items() if name not in _UNFELT}
    return hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()


def obstacle(
    module: nn.Module, compute: Callable[[Batch], Tensor], batch: Batch
) -> tuple[str | None, Tensor]:
    """Why what ``compute`` gives cannot be kept, or ``None``; and what it gave.

    Tried, not guessed: a state with a gradient depends on something that is trained, and one that
    differs from one call to the next on chance.
    """
    training = module.training
    seen = []
    devices = [batch.tokens.device] if batch.tokens.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        for seed, mode in ((1, True), (2, True), (2, False)):
            torch.manual_seed(seed)
            module.train(mode)
            seen.append(compute(batch))
    module.train(training)
    first, *others = seen
    why = None
    if first.requires_grad:
        why = "something that is trained lies below them"
    elif not all(torch.equal(first, other) for other in others):
        why = "something in them goes by chance, and cannot be switched off"
    return why, first.detach()


def room(needed: int, place: Path) -> str | None:
    """Why so many bytes cannot be kept, or ``None``."""
    free = shutil.disk_usage(place.parent).free
    if needed > cache.bound():
        return f"the cache may hold {cache.bound():,} bytes (LUTHIER_CACHE_BYTES)"
    return f"{free:,} bytes are free on its disk" if needed > free // 2 else None


@dataclass(frozen=True)
class Kept:
    """What was kept of a store of examples.

    Attributes:
        table: the examples' table that it belongs to.
        rows: rows of every example, in their order; mapped from disk.
        ends: where each example's rows end.
    """

    table: str
    rows: Rows
    ends: npt.NDArray[Any]

    def on(self, example: Example, index: int) -> Example:
        """Example ``index`` of the store with its rows; nothing is read yet."""
        begin = int(self.ends[index - 1]) if index else 0
        rows = self.rows[begin : int(self.ends[index])]
        table = {**example.targets.get(self.table, {}), COLUMN: rows}
        return replace(example, targets={**example.targets, self.table: table})


class KeptExamples(Sequence[Example]):
    """Examples, each with what was kept of it."""

    def __init__(self, examples: Sequence[Example], kept: Kept) -> None:
        self._examples, self._kept = examples, kept

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._kept.on(self._examples[index], index)


def kept(
    examples: Sequence[Example],
    table: str,
    ends: npt.NDArray[Any],
    compute: Callable[[Batch], Tensor],
    module: nn.Module,
    cut: Cut,
    collate: Collate,
    place: Path,
) -> Kept:
    """What ``compute`` gives for every example, from the cache or into it.

    Args:
        examples: in the order of the entry.
        table: the table that its rows are to stand in.
        ends: where each example's rows end.
        compute: rows of a batch, its examples' end to end.
        module: run in evaluation mode.
        cut: sizes to micro-batches.
        collate: examples to a batch on the device.
        place: entry of the cache; read where it is there.
    """
    if not place.is_dir():
        with cache.made(place) as folder:
            _compute(examples, ends, compute, module, cut, collate, folder / _FILE)
    rows = np.load(place / _FILE, mmap_mode="r", allow_pickle=False)
    return Kept(table, cast("Rows", rows), ends)


def _compute(
    examples: Sequence[Example],
    ends: npt.NDArray[Any],
    compute: Callable[[Batch], Tensor],
    module: nn.Module,
    cut: Cut,
    collate: Collate,
    file: Path,
) -> None:
    """One pass over the examples, in evaluation mode, written as it goes."""
    made: Any = None
    training = module.training
    module.eval()
    with torch.no_grad():
        for indices in _micro_batches(examples, cut):
            found = compute(collate([examples[i] for i in indices]))
            wide = found.to(torch.promote_types(found.dtype, torch.float32)).cpu().numpy()
            if made is None:
                shape = (int(ends[-1]), *wide.shape[1:])
                made = open_memmap(file, mode="w+", dtype=wide.dtype, shape=shape)
            at = 0
            for i in indices:
                begin, end = (int(ends[i - 1]) if i else 0), int(ends[i])
                made[begin:end] = wide[at : at + end - begin]
                at += end - begin
    module.train(training)
    assert made is not None, "no example"
    made.flush()


def _micro_batches(examples: Sequence[Example], cut: Cut) -> Iterator[list[int]]:
    for first in range(0, len(examples), _STRETCH):
        sizes = [example.size for example in examples[first : first + _STRETCH]]
        for indices in cut(sizes):
            if indices:
                yield [first + i for i in indices]


def pooling(model: HeadedModel, head: str) -> Callable[[Batch], Tensor]:
    """The states ``[R, H]`` that a head's table asks for: of whole segments, or of tokens."""

    def compute(batch: Batch) -> Tensor:
        table = batch.targets[head]
        place = "position" if "position" in table else "segment"
        return model.pooled(batch, model.hidden(batch), table[place])

    return compute


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
