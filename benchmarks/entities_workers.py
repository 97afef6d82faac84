"""What the processes of benchmarks/entities.py do: one training each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from entities import BATCH, RANK
from side_by_side_workers import adapted, trained, trainer_of

from luthier.core.records import Origin, Scored
from luthier.core.tags import entities
from luthier.metrics.entities import Metric


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`luthier.train`; the training's seconds are those between the data and the saved result."""
    lora = {"kind": "lora", "rank": RANK["luthier"]}
    recipe = {
        "model": {"name": job["model"], "dropout": 0.0},
        "objective": "token_classification",
        "method": lora if job["method"] == "lora" else "full",
        "data": {"train": job["train"], "validation": job["test"], "check": "warn"},
        "training": {
            "batch_size": BATCH,
            "epochs": job["epochs"],
            "learning_rate": job["rate"],
            "precision": "float32",
            "evaluate_every": 10**6,
            "trackers": [],
            "seed": job["seed"],
            "threads": job["threads"],
            "device": "cpu",
        },
        "evaluation": {"before": False, "resamples": 100},
        "output": str(Path(job["folder"]) / "run"),
    }
    run, seconds = trained(recipe)
    last = [event for event in run.events if event["kind"] == "step"][-1]
    figures = run.metrics
    return {
        **{name: figures[f"entity_{name}"]["after"] for name in ("f1", "precision", "recall")},
        "rows": run.evaluation["rows"],
        "train_seconds": round(seconds, 1),
        "steps": last["step"],
        "last_loss": last["loss"],
    }


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """Trainer, and the entities of the test sentences as it reads them."""
    torch.set_num_threads(job["threads"])
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
    )

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    train, test = read(job["train"]), read(job["test"])
    kinds = sorted({tag[2:] for row in train for tag in row["tags"] if tag != "O"})
    names = ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]
    rows, held = ([encoded(tokenizer, row, names) for row in side] for side in (train, test))
    torch.manual_seed(job["seed"])
    model = AutoModelForTokenClassification.from_pretrained(
        job["model"], num_labels=len(names), dtype=torch.float32
    )
    model = adapted(model, RANK["trainer"] if job["method"] == "lora" else None, "TOKEN_CLS")
    collator = DataCollatorForTokenClassification(tokenizer)
    trainer = trainer_of(job, model, rows, tokenizer, collator, batch_size=BATCH, rate=job["rate"])
    trainer.args.num_train_epochs = job["epochs"]
    begun = time.perf_counter()
    done = trainer.train()
    seconds = time.perf_counter() - begun
    best = trainer.predict(held).predictions.argmax(-1)
    metric = Metric()
    for line, (row, made, said) in enumerate(zip(test, held, best, strict=True), 1):
        tags = ["O"] * len(row["tags"])
        for position, word in firsts(made["words"]):
            tags[word] = names[int(said[position])]
        metric.update(
            Scored(
                Origin("test", line),
                spans=tuple(entities(row["tags"])),
                said_spans=tuple(entities(tags)),
            )
        )
    totals = {name: rows.sum(0) for name, rows in metric.rows().items()}
    return {
        **{
            name.removeprefix("entity_"): float(metric.reduce(name, total))
            for name, total in totals.items()
        },
        "rows": len(test),
        "train_seconds": round(seconds, 1),
        "steps": done.global_step,
        "last_loss": trainer.losses[-1],
    }


def read(path: str) -> list[dict[str, Any]]:
    """Sentences, as the parent wrote them."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def encoded(tokenizer: Any, row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Tokens, and a label at the first one of each word, as transformers' own example has it."""
    made = tokenizer(row["tokens"], is_split_into_words=True, truncation=True)
    words = made.word_ids()
    labels = [-100] * len(words)
    for position, word in firsts(words):
        # A type that no training sentence has cannot be learned; it counts as missed.
        labels[position] = names.index(row["tags"][word]) if row["tags"][word] in names else 0
    return {**made, "labels": labels, "words": words}


def firsts(words: list[int | None]) -> list[tuple[int, int]]:
    """Where each word has its first token."""
    return [
        (position, word)
        for position, word in enumerate(words)
        if word is not None and (position == 0 or words[position - 1] != word)
    ]
