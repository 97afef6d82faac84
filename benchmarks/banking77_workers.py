"""What the processes of benchmarks/banking77.py do: one training each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from banking77 import BATCH, PARITY_RATE, read
from side_by_side import merged
from side_by_side_workers import adapted, set_dropout, trained, trainer_of

import luthier


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`luthier.train`; the training's seconds are those between the data and the saved result."""
    run, seconds = trained(recipe(job, job["settings"]))
    parts = [luthier.Run(stage) for stage in run.folder.stages] or [run]
    steps = [[e for e in part.events if e["kind"] == "step"][-1] for part in parts]
    figures = parts[-1].metrics
    environment = json.loads(parts[-1].folder.environment.read_text(encoding="utf-8"))
    return {
        "accuracy": figures["accuracy"]["after"],
        "f1_macro": figures["f1_macro"]["after"],
        "rows": parts[-1].evaluation["rows"],
        "parameters": environment["parameters"],
        "train_seconds": round(seconds, 1),
        "step_seconds": round(sum(step["seconds"] for step in steps), 1),
        "steps": sum(step["step"] for step in steps),
        "last_loss": steps[-1]["loss"],
    }


def recipe(job: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A whole recipe."""
    return merged(
        {
            "model": {"name": job["model"]},
            "data": {"train": job["train"], "validation": job["test"], "check": "warn"},
            "training": {"seed": job["seed"], "threads": job["threads"], "device": "cpu"},
            "output": str(Path(job["folder"]) / "run"),
        },
        settings,
    )


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """Trainer, and its predictions of the test rows."""
    settings = job["settings"]
    trainer, held = prepared(job, settings["learning_rate"], rank=settings.get("rank"))
    begun = time.perf_counter()
    trainer.args.num_train_epochs = settings["epochs"]
    done = trainer.train()
    seconds = time.perf_counter() - begun
    predicted = trainer.predict(held)
    right = predicted.predictions.argmax(-1) == predicted.label_ids
    return {
        "accuracy": float(right.mean()),
        "rows": len(right),
        "train_seconds": round(seconds, 1),
        "steps": done.global_step,
        "last_loss": trainer.losses[-1],
    }


def same_ours(job: dict[str, Any]) -> dict[str, Any]:
    """Trainer's head and settings in ours: the loss of each step."""
    settings = {
        "model": {"name": job["model"], "dropout": 0.0},
        "objective": {"kind": "classification", "pooling": "first"},
        "method": "full",
        "data": {"validation": 0},
        "training": {
            "batch_size": BATCH,
            "max_steps": job["steps"],
            "epochs": 100,
            "learning_rate": PARITY_RATE,
            "schedule": "linear",
            "warmup": 0,
            "betas": [0.9, 0.999],
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "precision": "float32",
            "log_every": 1,
            "trackers": [],
        },
    }
    run = luthier.train(recipe(job, settings), quiet=True)
    return {"losses": [event["loss"] for event in run.events if event["kind"] == "step"]}


def same_theirs(job: dict[str, Any]) -> dict[str, Any]:
    """The same of Trainer."""
    trainer, _ = prepared(job, PARITY_RATE, dropout=0.0, max_steps=job["steps"])
    trainer.train()
    return {"losses": trainer.losses}


def prepared(
    job: dict[str, Any],
    rate: float,
    *,
    rank: int | None = None,
    dropout: float | None = None,
    max_steps: int = -1,
) -> tuple[Any, list[dict[str, Any]]]:
    """A Trainer that keeps the loss of each step, and the test rows."""
    torch.set_num_threads(job["threads"])
    from transformers import AutoTokenizer, DataCollatorWithPadding

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    names = sorted({label for _, label in read(job["train"])})
    rows, held = (encoded(tokenizer, read(job[part]), names) for part in ("train", "test"))
    trainer = trainer_of(
        job,
        classifier(job, names, rank, dropout),
        rows,
        tokenizer,
        DataCollatorWithPadding(tokenizer),
        batch_size=BATCH,
        rate=rate,
        max_steps=max_steps,
    )
    return trainer, held


def encoded(tokenizer: Any, rows: list[tuple[str, str]], names: list[str]) -> list[dict[str, Any]]:
    """Tokens and labels of each row."""
    made = tokenizer([text for text, _ in rows], truncation=True)
    return [
        {**{key: made[key][i] for key in made}, "labels": names.index(label)}
        for i, (_, label) in enumerate(rows)
    ]


def classifier(
    job: dict[str, Any], names: list[str], rank: int | None, dropout: float | None
) -> Any:
    """The architecture's own, a fresh head on the encoder; adapters on it if there is a rank."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(job["model"], num_labels=len(names))
    set_dropout(config, dropout)
    torch.manual_seed(job["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], config=config, dtype=torch.float32
    )
    return adapted(model, rank, "SEQ_CLS")
