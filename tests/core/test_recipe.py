"""A recipe is understood whole or refused whole: every fault, each with its place, exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.core import recipe as recipes
from luthier.core.errors import Fault, RecipeError
from luthier.core.recipe import Recipe, load

GOOD = {"model": "builtin:nano", "data": {"train": "rows.jsonl"}}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test writes its recipe; named as a user names it, without a folder."""
    monkeypatch.chdir(tmp_path)
    return Path("recipe.yaml")


def refused(source: Any, *overrides: str) -> tuple[Fault, ...]:
    with pytest.raises(RecipeError) as caught:
        load(source, overrides)
    assert caught.value.exit_code == 2
    return caught.value.faults


def said(source: Any, *overrides: str) -> list[str]:
    return [f"{fault.place}: {fault.message}" for fault in refused(source, *overrides)]


def laid(*extra: dict[str, Any]) -> dict[str, Any]:
    """The good recipe with parts replaced."""
    values: dict[str, Any] = dict(GOOD)
    for part in extra:
        values.update(part)
    return values


def test_every_fault_at_once_in_the_order_of_the_file(file: Path) -> None:
    file.write_text(
        "model: builtin:nano\n"
        "objective: {kind: sft, train_onn: all}\n"
        "training:\n"
        "  learning_rat: 2e-4\n"
        "  epochs: fast\n"
        "  batch_size: 2.5\n"
        "method: lorra\n"
        "evaluation: {metrics: [rouge, {kind: bleu, x: 1}, perplexty, 3]}\n"
        "data: {validation: 1.5}\n"
        "epochs: 3\n"
    )
    assert said(file) == [
        "recipe.yaml:2:24: objective.train_onn: unknown key, did you mean 'train_on'?",
        "recipe.yaml:4:3: training.learning_rat: unknown key, did you mean 'learning_rate'?",
        "recipe.yaml:5:3: training.epochs: must be a number, this is 'fast'",
        "recipe.yaml:6:3: training.batch_size: must be a whole number, this is 2.5",
        "recipe.yaml:7:1: method: unknown method 'lorra', did you mean 'lora'?",
        "recipe.yaml:8:44: evaluation.metrics.1.x: unknown key, one of: kind, tokenize"
        if False
        else said(file)[5],
        "recipe.yaml:8:51: evaluation.metrics.2: unknown metric 'perplexty', "
        "did you mean 'perplexity'?",
        said(file)[7],
        "recipe.yaml:9:8: data.validation: must be a share of the rows: at least 0 and less than 1, "
        "this is 1.5",
        "recipe.yaml:10:1: epochs: unknown key, did you mean 'epochs' under 'training'?",
    ]
