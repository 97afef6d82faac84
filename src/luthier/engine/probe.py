"""Chooses precision and threads for this machine by a short probe; the recipe can pin both."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from luthier.core.recipe import TrainingSpec
from luthier.engine.backend import Precision

#: glibc's names of the two thresholds: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD.
_MALLOPT = {-1: 2**31 - 1, -3: 2**30}

#: torch's own switch: tensors of 2 MB and more ask the kernel for pages of 2 MB.
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"

#: bfloat16 must be this much faster than float32 before it is chosen on a CPU.
_GAIN = 1.25


def prepare_host(threads: int | None) -> int:
    """Thread count, denormals and allocator; before anything starts torch's thread pool.

    Fresh pages are a large part of a training step's cost on CPUs: freed memory is kept rather
    than given back to the system, and large tensors ask for huge pages (a third of the page
    faults; a quarter less memory at the peak of a 135M model). Denormal numbers, which are slow
    and carry nothing, become 0.

    Returns:
        The number of threads.
    """
    os.environ.setdefault(_HUGE_PAGES, "1")  # read once, when the first tensor is made
    torch.set_flush_denormal(True)
    count = threads or _physical_cores()
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
    if os.name == "posix":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for name, value in _MALLOPT.items():
                libc.mallopt(name, value)
    return count


def choose(spec: TrainingSpec, hidden: int, inner: int) -> dict[str, Any]:
    """What the recipe left open, with the figures that decided.

    Args:
        spec: the recipe's training part.
        hidden: hidden size of the model.
        inner: width of its feed-forward layers.
    """
    if spec.precision != "auto":
        return {"precision": spec.precision, "because": "the recipe says so"}
    device = spec.device
    if device in ("auto", "cuda") and torch.cuda.is_available():
        precision: Precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        return {"precision": precision, "because": "the GPU's own 16-bit arithmetic"}
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return {"precision": "float32", "because": "the default on Apple GPUs"}
    ratio = _bfloat16_gain(hidden, inner)
    precision = "bfloat16" if ratio >= _GAIN else "float32"
    return {
        "precision": precision,
        "bfloat16_speed": round(ratio, 2),
        "because": f"bfloat16 runs at {ratio:.1f} times float32's speed here",
    }


def _bfloat16_gain(hidden: int, inner: int, rows: int = 2048, repeats: int = 25) -> float:
    """Time of a feed-forward product in float32 over its time in bfloat16, conversion included."""
    x = torch.randn(rows, hidden)
    w = torch.randn(inner, hidden)

    def wide() -> None:
        (x @ w.T).sum()

    def narrow() -> None:
        (x.bfloat16() @ w.bfloat16().T).sum()

    # In turn, and the best of each: another program's burst must not decide.
    times: dict[str, list[float]] = {"wide": [], "narrow": []}
    for _ in range(repeats):
        times["wide"].append(_seconds(wide))
        times["narrow"].append(_seconds(narrow))
    return min(times["wide"]) / min(times["narrow"])


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once where the system tells."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False) or allowed
    return max(1, min(allowed or 1, physical or 1))
