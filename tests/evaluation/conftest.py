"""A run folder as a finished run leaves it, small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.core.rundir import RunDir, write_json, write_lines

RECIPE = """version: 1
model:
  name: luthier/base
objective:
  kind: sft
method:
  kind: lora
  rank: 8
data:
  train: shop <support>.jsonl
"""


def step(number: int, **fields: Any) -> dict[str, Any]:
    loss = 5.0 * 0.97**number + 0.05
    return {
        "kind": "step",
        "step": number,
        "epoch": number / 100,
        "tokens": 1000 * number,
        "loss": loss,
        "terms": {"nll": loss},
        "learning_rate": 2e-4 * (1 - number / 200),
        "grad_norm": 1.0 + 1 / number,
        "tokens_per_second": 5000,
        "memory": 600_000_000,
        "seconds": number * 0.5,
        "skipped": 0,
    } | fields


def measure(before: float | None, after: float | None, p: float | None, higher: bool) -> Any:
    difference = None if before is None or after is None else after - before
    interval = None if difference is None else [difference - 0.1, difference + 0.1]
    return {
        "before": before,
        "after": after,
        "difference": difference,
        "interval": interval,
        "p_value": p,
        "higher_is_better": higher,
    }


@pytest.fixture
def full_run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "shop-assistant")
    run.model.mkdir(parents=True)
    run.card.write_text("card", encoding="utf-8")
    run.recipe.write_text(RECIPE, encoding="utf-8")
    counts = {"rows": 2400, "tokens": 412880, "cut": 0, "skipped": 3, "format": "messages"}
    environment = {
        "luthier": "0.1.0",
        "device": "cpu",
        "precision": "float32",
        "data": {"train": counts, "validation": {"rows": 240}},
        "parameters": {"trainable": 4000, "total": 1_000_000},
        "probe": {"threads": [1, 2], "chosen": "2 threads"},
    }
    write_json(run.environment, environment)
    events = [step(number) for number in range(1, 181)]
    events += [
        {"kind": "validation", "step": number, "loss": 5.0 * 0.97**number + 0.2, "terms": {}}
        for number in (1, 60, 120, 180)
    ]
    events.append({"kind": "warning", "step": 7, "message": "warmup <has> no effect"})
    write_lines(run.events, events)
    metrics = {
        "perplexity": measure(85.0, 3.2, 1 / 10_001, higher=False),
        "token_accuracy": measure(0.4, 0.41, 0.31, higher=True),
        "chrf": measure(40.0, 35.0, 0.01, higher=True),
    }
    write_json(run.evaluation, {"rows": 240, "metrics": metrics, "seconds": 12.0})
    sample = {
        "prompt": "Where is my order?",
        "reference": "On its way.",
        "before": "<script>alert('owned')</script>",
        "after": "On its way.",
        "origin": "shop.jsonl:12",
    }
    write_lines(run.samples, [sample, sample | {"reference": None, "before": "", "after": "今天"}])
    return run
