"""What every test stands on: no network, a cache of its own, two threads, two finished runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tiny_runs import tiny_recipe

# Read by libraries when they are imported, so before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LUTHIER_CACHE"] = tempfile.mkdtemp(prefix="luthier-test-cache-")
os.environ.pop("LUTHIER_CACHE_BYTES", None)

# The same examples in every run, however slow the machine: what is red stays red, and nothing is
# red by luck. Others are tried by `pytest --hypothesis-profile default --hypothesis-seed 7`.
settings.register_profile(
    "luthier",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("luthier")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings that peft raises about transformers; not ours to mend."""
    config.addinivalue_line("filterwarnings", "ignore:.*is_gradient_checkpointing.*:FutureWarning")


def pytest_unconfigure() -> None:
    """Takes the cache away again."""
    import shutil

    shutil.rmtree(os.environ["LUTHIER_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    """Training sets threads and subnormal numbers for its process; the next test finds its own."""
    import torch

    threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished full run of a tiny model; not to be written to."""
    import luthier

    output = tmp_path_factory.mktemp("runs") / "full"
    return luthier.train(tiny_recipe(output), quiet=True).path


@pytest.fixture(scope="session")
def tiny_lora_run(tiny_run: Path) -> Path:
    """The folder of a finished LoRA run of two steps on :func:`tiny_run`; not to be written to."""
    import luthier

    changes: dict[str, Any] = {
        "model": str(tiny_run),
        "method": {"kind": "lora", "rank": 4},
    }
    recipe = tiny_recipe(tiny_run.parent / "lora", **changes)
    recipe["training"] = {**recipe["training"], "max_steps": 2, "learning_rate": 0.1}
    return luthier.train(recipe, quiet=True).path
