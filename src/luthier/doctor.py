"""What this machine offers to training, and what stands in its way."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

import luthier
from luthier import environment
from luthier.core import cache
from luthier.core.recipe import TrainingSpec
from luthier.core.words import size
from luthier.engine import probe

#: Beside what training itself needs.
EXTRAS = {
    "tensorboard": "curves while training",
    "wandb": "Weights & Biases tracking",
    "mlflow": "MLflow tracking",
    "pandas": "rows from data frames",
    "bitsandbytes": "bases in four bits, method qlora",
}
_GB = 2**30
_MEMORY, _DISK = 2 * _GB, 5 * _GB
#: A layer's sizes for the probe: large enough to tell, small enough to answer at once.
_HIDDEN, _INNER = 256, 1024


@dataclass(frozen=True)
class Fact:
    """One thing found.

    Attributes:
        name: what it is about.
        value: how it is.
        trouble: why that is a problem; empty where it is none.
        cure: what to do about it.
    """

    name: str
    value: str
    trouble: str = ""
    cure: str = ""


def examine() -> dict[str, list[Fact]]:
    """Everything, by section."""
    return {
        "Versions": list(_versions()),
        "Machine": list(_machine()),
        "Devices": list(_devices()),
        "Disk": list(_disk()),
        "Extras": list(_extras()),
    }


def _versions() -> Iterator[Fact]:
    yield Fact("luthier", luthier.__version__)
    yield Fact("python", platform.python_version())
    for name in environment.LIBRARIES:
        yield Fact(name, environment.version(name) or "not installed")


def _machine() -> Iterator[Fact]:
    yield Fact("system", platform.platform(terse=True))
    threads = probe.prepare_host(None)
    count = os.cpu_count() or 1
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    crowded = busy > 1.5 * count
    yield Fact(
        "processor",
        f"{count} cores, load {busy:.1f}",
        "other programs keep the cores busy, so training will be slow" if crowded else "",
        "let them finish first, or set training.threads lower" if crowded else "",
    )
    yield Fact("threads", f"{threads} for training")
    memory = psutil.virtual_memory()
    low = memory.available < _MEMORY
    yield Fact(
        "memory",
        f"{size(memory.available)} free of {size(memory.total)}",
        "little memory is free" if low else "",
        "close other programs, or take a smaller model" if low else "",
    )


def _devices() -> Iterator[Fact]:
    chosen = probe.choose(TrainingSpec(device="cpu"), _HIDDEN, _INNER)
    yield Fact("cpu", f"{chosen['precision']}: {chosen['because']}")
    if torch.backends.mps.is_available():
        yield Fact("mps", "Apple GPU, float32")
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        sixteen = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        yield Fact(
            f"cuda:{number}",
            f"{torch.cuda.get_device_name(number)}, {size(free)} free of {size(total)}, {sixteen}",
        )
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        built = torch.version.cuda
        yield Fact(
            "cuda",
            "not usable",
            "there is an NVIDIA driver, but torch "
            + (f"(for CUDA {built}) cannot use it" if built else "was built without CUDA"),
            "install torch for your driver's CUDA version: https://pytorch.org/get-started",
        )


def _disk() -> Iterator[Fact]:
    yield _room("here", Path.cwd(), "free some, or train into another folder: output=DIR")
    place = cache.folder()
    nearest = next(p for p in (place, *place.parents) if p.exists())
    held = sum(entry.size for entry in cache.entries()) if place.is_dir() else 0
    bound = cache.bound()
    writable = os.access(nearest, os.W_OK)
    yield Fact(
        "cache",
        f"{size(held)} of {size(bound)} at {place}",
        "" if writable else "nothing can be written there",
        "" if writable else "name another folder: export LUTHIER_CACHE=DIR",
    )
    if nearest.stat().st_dev != Path.cwd().stat().st_dev:
        yield _room("at cache", nearest, "`luthier cache clear`, or export LUTHIER_CACHE=DIR")


def _room(name: str, place: Path, cure: str) -> Fact:
    usage = shutil.disk_usage(place)
    low = usage.free < _DISK
    return Fact(
        name,
        f"{size(usage.free)} free of {size(usage.total)}",
        "little disk space is free" if low else "",
        cure if low else "",
    )


def _extras() -> Iterator[Fact]:
    for name, purpose in EXTRAS.items():
        found = environment.version(name)
        yield Fact(name, found or f"not installed ({purpose}: pip install {name})")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        yield Fact("hub", "offline, as HF_HUB_OFFLINE says")
