"""``training.compile``: the same run, its blocks compiled."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch._dynamo.utils
from tiny_runs import tiny_recipe

import luthier


def losses(run: luthier.Run) -> list[float]:
    return [event["loss"] for event in run.events if event["kind"] == "step"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_learns_what_a_plain_one_learns(tmp_path: Path) -> None:
    found: dict[bool, Any] = {}
    for compiled in (False, True):
        recipe = tiny_recipe(tmp_path / str(compiled))
        recipe["training"] |= {"max_steps": 4, "log_every": 1, "compile": compiled}
        torch._dynamo.utils.counters.clear()
        found[compiled] = losses(luthier.train(recipe, quiet=True))
        assert bool(torch._dynamo.utils.counters["stats"]["unique_graphs"]) == compiled
    assert found[True] == pytest.approx(found[False], rel=1e-4)
