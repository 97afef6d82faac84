"""When memory runs out in a step: half the token budget, and the same step once more."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from luthier.core.errors import TrainingError

T = TypeVar("T")
Cut = Callable[[Sequence[int], int], list[list[int]]]

#: What allocators say in errors that are no ``torch.OutOfMemoryError``.
_SAID = (
    "cuda out of memory",
    "cuda error: out of memory",
    "mps backend out of memory",
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
    "bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _SAID)


def retried(work: Callable[[], T], smaller: Callable[[str], None]) -> T:
    """What ``work`` returns; after an allocator's error, ``smaller`` is called and it is redone.

    Args:
        work: may be begun again from its start.
        smaller: makes it need less, or raises where that cannot be.
    """
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = " ".join(str(error).split())[:200]
        # Not in the handler: its traceback holds every tensor of the step.
        release()
        smaller(said)


def release() -> None:
    """Gives back what is no longer used, so that smaller pieces find room."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if os.name == "posix" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def halved(budget: int, longest: int, cut: Cut, sizes: Sequence[int], said: str) -> int:
    """Half the budget, halved again until the step is cut into smaller micro-batches.

    Args:
        budget: tokens of a micro-batch that were too many.
        longest: tokens of the run's longest example, which must fit whole.
        cut: sizes and a budget to micro-batches.
        sizes: tokens of the step's examples.
        said: the allocator's words.

    Raises:
        TrainingError: no smaller budget helps.
    """
    before, smaller = cut(sizes, budget), budget
    while smaller > longest:
        smaller = max(longest, smaller // 2)
        if cut(sizes, smaller) != before:
            return smaller
    raise TrainingError(
        f"memory ran out with {budget:,} tokens in a micro-batch, and fewer do not help: the "
        f"longest example has {longest:,} ({said or 'the allocator gave no reason'})",
        cure="training.gradient_checkpointing: true, a smaller data.max_length, a smaller model, "
        "or method: lora",
        code="memory",
    )


def smaller(step: int, before: int, budget: int) -> str:
    """What is said of a budget that was halved."""
    return (
        f"memory ran out after step {step}: {before:,} tokens in a micro-batch become {budget:,}, "
        "and the same rows are taken again"
    )


@contextmanager
def fatal(where: str) -> Iterator[None]:
    """Around what can be neither begun again nor made smaller.

    Raises:
        TrainingError: memory ran out in it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory ran out {where}",
            cure="a smaller model, method: lora, or training.optimizer: sgd; "
            "`luthier train --resume RUN` goes on from the last checkpoint",
            code="memory",
        ) from error


def on_several_ranks(run: Path, budget: int, longest: int, said: str) -> TrainingError:
    """Why a launch of several ranks ends: one that lacks memory cannot agree with the others."""
    smaller = max(longest, budget // 2)
    return TrainingError(
        f"memory ran out on one of several ranks, with {budget:,} tokens in a micro-batch ({said})",
        cure=f"continue with less: luthier train --resume {run} training.token_budget={smaller}",
        code="memory",
    )
