"""What the processes of benchmarks/frozen.py do."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from banking77_workers import prepared

from luthier.assemble import assemble
from luthier.core import recipe as recipes
from luthier.core.rundir import RunDir
from luthier.engine.backend import Backend
from luthier.engine.checkpoint import State
from luthier.engine.loop import Loop
from luthier.engine.watch import Stop
from luthier.feed import feed
from luthier.fit import peak_rate
from luthier.models.run_models import RunModels

#: Less than any cache: what the frozen layers give is then computed at every step.
NOTHING = "1"


class Losses:
    """A tracker that keeps the loss of every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def log(self, event: Any) -> None:
        """Takes a line."""
        if event["kind"] == "step":
            self.found.append(event["loss"])

    def close(self) -> None:
        """Nothing is open."""


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Both ways, step by step in turn."""
    torch.set_num_threads(job["threads"])
    kept, computed = Losses(), Losses()
    loops, begun = {}, {}
    for name, tracker in (("computed", computed), ("kept", kept)):
        if name == "computed":
            os.environ["LUTHIER_CACHE_BYTES"] = NOTHING
        else:
            del os.environ["LUTHIER_CACHE_BYTES"]
        loops[name], begun[name] = loop(job, tracker)
    seconds = dict.fromkeys(loops, 0.0)
    total = loops["kept"].data.total
    for step in range(total):
        # Whoever comes second finds the rows' memory warm: they change places.
        for name in sorted(loops, reverse=step % 2 == 0):
            start = time.process_time()
            loops[name]._step()
            seconds[name] += time.process_time() - start
            loops[name]._log_step()
    apart = [abs(a - b) for a, b in zip(kept.found, computed.found, strict=True)]
    assert len(apart) == total
    return {
        "kept_seconds": round(seconds["kept"], 2),
        "computed_seconds": round(seconds["computed"], 2),
        "fill_seconds": round(begun["kept"] - begun["computed"], 2),
        "largest_difference": max(apart),
        "differing_steps": sum(each > 0 for each in apart),
        "last_losses": [kept.found[-1], computed.found[-1]],
        "steps": total,
    }


def silent(_line: str) -> None:
    """Nobody reads it."""


def loop(job: dict[str, Any], tracker: Losses) -> tuple[Loop, float]:
    """A loop as ``luthier train`` makes it, and the seconds before its first step."""
    recipe = {
        "model": {"name": job["model"], "dropout": job["dropout"]},
        "objective": "classification",
        "method": {"kind": "freeze", "last": job["last"]},
        "data": {"train": job["train"], "validation": 0, "check": "warn"},
        "training": {
            "epochs": job["epochs"],
            "batch_size": job["batch_size"],
            "learning_rate": job["learning_rate"],
            "precision": job["precision"],
            "seed": job["seed"],
            "threads": job["threads"],
            "device": "cpu",
            "trackers": [],
        },
    }
    parts = assemble(recipes.load(recipe), silent)
    backend = Backend("cpu", job["precision"])
    choices = {"precision": job["precision"], "threads": job["threads"]}
    start = time.process_time()
    data, policy = feed(parts, backend, choices, silent)
    took = time.process_time() - start
    made = Loop(
        parts.recipe.training,
        RunDir(Path(tempfile.mkdtemp(dir=job["folder"]))),
        backend,
        parts.objective,
        parts.method,
        RunModels(policy, parts.method),
        data,
        peak_rate(parts),
        [tracker],
        Stop(),
        State(choices=choices),
    )
    policy.module.train()
    return made, took


def trainer(job: dict[str, Any]) -> dict[str, Any]:
    """Trainer with the same layers frozen, padded batches and its usual settings."""
    made, _ = prepared(job, job["learning_rate"])
    bert = made.model.bert
    for module in (bert.embeddings, *bert.encoder.layer[: -job["last"]]):
        module.requires_grad_(False)
    made.args.num_train_epochs = job["epochs"]
    real = padded = 0
    collate = made.data_collator

    def counted(rows: Any) -> Any:
        nonlocal real, padded
        batch = collate(rows)
        real, padded = (
            real + int(batch["attention_mask"].sum()),
            padded + batch["input_ids"].numel(),
        )
        return batch

    made.data_collator = counted
    start = time.process_time()
    done = made.train()
    return {
        "seconds": round(time.process_time() - start, 2),
        "steps": done.global_step,
        "last_loss": made.losses[-1],
        "padded_over_real": round(padded / real, 2),
    }
