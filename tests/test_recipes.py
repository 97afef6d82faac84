"""Every ready recipe runs for two steps, on the data that it names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import luthier
from luthier.core.rundir import RunDir
from luthier.demo.support import write
from luthier.ready import find_recipe, names

QUICK = [
    "training.max_steps=2",
    "training.batch_size=2",
    "training.precision=float32",
    "data.limit=40",
    "evaluation.rows=2",
    "evaluation.samples=1",
    "evaluation.generate_rows=1",
    "evaluation.max_new_tokens=4",
    "evaluation.resamples=100",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_ready_recipe_runs_two_steps(name: str, tmp_path: Path) -> None:
    recipe: dict[str, Any] = yaml.safe_load(find_recipe(name).read_text(encoding="utf-8"))
    if "LUTHIER_DATA" in json.dumps(recipe) and "LUTHIER_DATA" not in os.environ:
        pytest.skip("LUTHIER_DATA is not set")
    overrides = [*QUICK, f"output={tmp_path / 'run'}"]
    if name in ("demo", "support"):
        files = write(tmp_path / "data")
        overrides += [f"data.train={files['train']}"]
        if name == "demo":
            overrides += [f"data.validation={files['test']}"]
    if "stages" in recipe:
        stages = [
            {**stage, "training": {**stage.get("training", {}), "max_steps": 2}}
            for stage in recipe["stages"]
        ]
        recipe["stages"] = stages
        recipe["data"]["limit"] = 40
        overrides += ["data.max_length=64"]
    run = luthier.train(recipe, overrides, quiet=True)
    assert run.finished
    assert RunDir(run.path).report.is_file()
