"""Every ready recipe runs for two steps, on the data that it names or on rows like them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import classifiers
import encoders
import pytest
import yaml

import luthier
from luthier.core.rundir import RunDir, read_lines
from luthier.demo.support import write
from luthier.ready import find_recipe, names

QUICK = [
    "training.max_steps=2",
    "training.batch_size=2",
    "training.precision=float32",
    "evaluation.rows=2",
    "evaluation.samples=1",
    "evaluation.generate_rows=1",
    "evaluation.max_new_tokens=4",
    "evaluation.resamples=100",
]
FEW = "data.limit=40"
#: As many as a pretrained encoder has.
POSITIONS = 512


def _few(_folder: Path) -> list[str]:
    return [FEW]


def _demo(folder: Path) -> list[str]:
    files = write(folder)
    return [FEW, f"data.train={files['train']}", f"data.validation={files['test']}"]


def _support(folder: Path) -> list[str]:
    return [FEW, f"data.train={write(folder)['train']}"]


def _intents(folder: Path) -> list[str]:
    """All rows: they stand class by class, and the first ones of two files share no classes."""
    model = classifiers.saved(folder, max_position_embeddings=POSITIONS)
    return [f"model={model}", "training.evaluate_every=2"]


def _encoder(folder: Path) -> list[str]:
    """All rows, as the first ones of two files share no classes."""
    return [f"model={encoders.saved(folder, max_position_embeddings=POSITIONS)}"]


def _sentiment(folder: Path) -> list[str]:
    """Reviews as the hub's, every fifth of them longer than the model reads."""
    model = classifiers.saved(folder / "model", "distilbert", max_position_embeddings=POSITIONS)
    reviews = [
        {"text": "so it goes, on and on, " * (60 if n % 5 == 0 else 2) + word, "label": label}
        for n in range(15)
        for label, word in enumerate(("and it was dull", "and it was a joy"))
    ]
    lines = "".join(json.dumps(review) + "\n" for review in reviews)
    made = [f"model={model}"]
    for part in ("train", "validation"):
        (folder / f"{part}.jsonl").write_text(lines, encoding="utf-8")
        made.append(f"data.{part}={folder / part}.jsonl")
    return made


#: What stands in for a model or data that are not here; a recipe with neither takes a few rows.
STAND_INS: dict[str, Callable[[Path], list[str]]] = {
    "demo": _demo,
    "support": _support,
    "intents": _intents,
    "assistant-understanding": _encoder,
    "entities": _encoder,
    "masked-lm": _encoder,
    "sentiment": _sentiment,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_ready_recipe_runs_two_steps(name: str, tmp_path: Path) -> None:
    recipe: dict[str, Any] = yaml.safe_load(find_recipe(name).read_text(encoding="utf-8"))
    if "LUTHIER_DATA" in json.dumps(recipe) and "LUTHIER_DATA" not in os.environ:
        pytest.skip("LUTHIER_DATA is not set")
    stand_in = STAND_INS.get(name, _few)
    overrides = [*QUICK, *stand_in(tmp_path / "data"), f"output={tmp_path / 'run'}"]
    if "stages" in recipe:
        stages = [
            {**stage, "training": {**stage.get("training", {}), "max_steps": 2}}
            for stage in recipe["stages"]
        ]
        recipe["stages"] = stages
    if isinstance(recipe["model"], dict):  # from scratch
        overrides += ["data.max_length=64", "training.compile=false"]
    run = luthier.train(recipe, overrides, quiet=True)
    assert run.finished
    assert RunDir(run.path).report.is_file()
    prompts = recipe.get("evaluation", {}).get("prompts", [])
    shown = list(read_lines(run.folder.samples))[: len(prompts)]
    assert [sample["prompt"] for sample in shown] == prompts
    assert all(sample["before"] and sample["after"] for sample in shown)
    cut = name == "sentiment"
    counts = json.loads(run.folder.environment.read_text(encoding="utf-8")).get("data", {})
    assert not cut or counts["train"]["cut"]["examples"] > 5
