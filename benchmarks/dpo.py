"""DPO by Luthier and by TRL's DPOTrainer: loss and margin step by step, useful tokens a second.

hh-rlhf's helpful pairs that fit into 512 tokens, on builtin:nano, everything tuned; the same
tokens, order, optimizer and number of steps. A token is useful where it is a pair's own: its
prompt's once, and both answers'. Each measurement is a process of its own, in turn. TRL runs in
three settings, its own best among them:

    trl live                a second model is asked at every step (its default)
    trl precomputed         the reference is asked once, before the first step, as Luthier does
    trl precomputed single  the same, a pair a micro-batch: less padding, gradients accumulated

(`padding_free` needs FlashAttention, which no CPU has.) Before anything is measured, losses and
reward margins of the first steps must agree between all of them; else the script stops and writes
nothing.

    pip install -e '.[bench]' -c constraints.txt
    LUTHIER_DATA=… python benchmarks/dpo.py --threads 2 --repeats 3
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

from side_by_side import call, load, versions, write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "dpo.json"
OURS = "luthier"
SYSTEMS = (OURS, "trl live", "trl precomputed", "trl precomputed single")
MODEL = "builtin:nano"
LONGEST = 512
BATCH = 8
RATE = 1e-4
BETA = 0.1
#: Steps whose figures must agree, how far losses may lie apart relatively, and margins absolutely.
STEPS, TOLERANCE = 8, 1e-4


def main() -> None:
    """Compares the first steps, makes the runs that are missing, one after another."""
    options = arguments()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    with tempfile.TemporaryDirectory(prefix="dpo-") as folder:
        job = {"folder": folder, "rows": folder, "threads": options.threads, "repeat": 0}
        about = call(__file__, {**job, "system": "prepare"})
        gate = {
            name: call(__file__, {**job, "system": name, "steps": STEPS})["figures"]
            for name in SYSTEMS
        }
        check(gate)
        for repeat in range(options.repeats):
            for name in SYSTEMS:
                one = {**job, "system": name, "steps": options.steps, "repeat": repeat}
                make(options, one, about, gate)
    for line in table(load(options.output)["summary"]):
        print(line)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=40, help=f"of {BATCH} pairs each")
    parser.add_argument("--skip", type=int, default=4, help="first steps that do not count")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def check(gate: dict[str, list[list[float]]]) -> None:
    """Everybody's losses and margins of the same steps, or the end."""
    for name, figures in gate.items():
        for ours, theirs in zip(gate[OURS], figures, strict=True):
            apart = abs(ours[0] / theirs[0] - 1), abs(ours[1] - theirs[1])
            if not max(apart) <= TOLERANCE:
                sys.exit(f"{name} differs; nothing is measured: {json.dumps(gate)}")


def make(
    options: argparse.Namespace,
    job: dict[str, Any],
    about: dict[str, Any],
    gate: dict[str, list[list[float]]],
) -> None:
    """A run, unless the results have it."""
    wanted = {key: job[key] for key in ("system", "repeat", "steps", "threads")}
    found = load(options.output)
    if any(all(run[key] == value for key, value in wanted.items()) for run in found["runs"]):
        print(f"{job['system']}, {job['repeat']}: there already", file=sys.stderr)
        return
    answer = call(__file__, {**job, "skip": options.skip})
    print(f"{job['system']}: {json.dumps(answer)}", file=sys.stderr, flush=True)
    others = [r for r in found["runs"] if any(r[k] != wanted[k] for k in ("system", "repeat"))]
    found["runs"] = [
        *others,
        {**wanted, **answer, "versions": versions() | {"trl": version("trl")}},
    ]
    found |= {"data": about, "gate": gate, "summary": summary(found["runs"])}
    found["setting"] = {"model": MODEL, "batch_size": BATCH, "learning_rate": RATE, "beta": BETA}
    write(options.output, found)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and ranges."""
    if len({run["tokens"] for run in runs}) > 1:
        sys.exit("not the same rows")
    made: dict[str, Any] = {}
    for name in SYSTEMS:
        own = [run for run in runs if run["system"] == name]
        if own:
            speeds = [run["tokens_per_second"] for run in own]
            made[name] = {
                "tokens_per_second": round(statistics.median(speeds), 1),
                "range": [round(min(speeds), 1), round(max(speeds), 1)],
                "train_seconds": round(statistics.median(r["train_seconds"] for r in own), 1),
                "peak_gb": round(statistics.median(run["peak_gb"] for run in own), 2),
            }
    return made


def table(found: dict[str, Any]) -> Iterator[str]:
    """The systems as a Markdown table; ratios are Luthier's speed over theirs."""
    yield (
        "| system | useful tokens/s | range | ratio | seconds in all, reference included "
        "| peak memory |"
    )
    yield "|---|---|---|---|---|---|"
    for name, f in found.items():
        low, high = f["range"]
        ratio = found[OURS]["tokens_per_second"] / f["tokens_per_second"] if OURS in found else 0
        yield (
            f"| {name} | {f['tokens_per_second']:,.0f} | {low:,.0f} to {high:,.0f} "
            f"| {ratio:.2f} | {f['train_seconds']:,.1f} | {f['peak_gb']:.2f} GB |"
        )


def section(found: dict[str, Any]) -> str:
    """DPO by both systems."""
    data, newest, setting = found["data"], found["runs"][-1], found["setting"]
    return "\n".join(
        [
            "## DPO beside TRL",
            "",
            f"`{setting['model']}` tuned in full on pairs of hh-rlhf's helpful part that fit into "
            f"{data['longest']} tokens, in batches of {setting['batch_size']}; the losses and "
            f"reward margins of the first {len(found['gate'][OURS])} steps agree to {TOLERANCE:g} "
            "between all rows of the table (`benchmarks/dpo.py`). A token is useful where it is a "
            "pair's own, its prompt counted once.",
            "",
            *table(found["summary"]),
            "",
            f"{newest['steps']} steps, float32, {newest['threads']} threads; TRL "
            f"{newest['versions']['trl']}, torch {newest['versions']['torch']}.",
            "",
        ]
    )


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A worker's task."""
    if job["system"] == "prepare":
        from preference_rows import prepare

        return prepare(Path(job["rows"]), MODEL, "dpo", LONGEST, True)
    made = ours(job) if job["system"] == OURS else theirs(job)
    made["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return made


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`luthier.train`; figures from events.jsonl."""
    from side_by_side_workers import trained

    rows = Path(job["rows"]) / "train.jsonl"
    count = job["steps"] * BATCH
    recipe = {
        "model": {"name": MODEL, "dropout": 0.0},
        "objective": {"kind": "dpo", "beta": BETA},
        "method": "full",
        "data": {
            "train": str(rows),
            "validation": 0,
            "max_length": LONGEST,
            "overlong": "refuse",
            "check": "off",
            "limit": count,
        },
        "training": {
            "batch_size": BATCH,
            "epochs": 1,
            "learning_rate": RATE,
            "schedule": "constant",
            "warmup": 0,
            "betas": [0.9, 0.999],
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "precision": "float32",
            "device": "cpu",
            "seed": 0,
            "threads": job["threads"],
            "log_every": 1,
            "trackers": [],
        },
        "output": tempfile.mkdtemp(dir=job["folder"]),
    }
    run, seconds = trained(recipe)
    steps = [event for event in run.events if event["kind"] == "step"]
    figures = [[event["loss"], event["watched"]["reward_margin"]] for event in steps]
    return measured(
        job, figures, [event["seconds"] for event in steps], [e["tokens"] for e in steps], seconds
    )


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """`DPOTrainer` on the same tokens in the same order."""
    import datasets
    import torch
    from preference_rows import tokens
    from side_by_side_workers import Rows
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from luthier.models.load import locate

    torch.set_num_threads(job["threads"])
    rows = tokens(Path(job["rows"]), "train", job["steps"] * BATCH)
    order = list(Rows(len(rows), 0))
    sizes = [sum(len(rows[i][name]) for name in rows[i]) for i in order]
    figures: list[list[float]] = []
    clock: list[float] = []
    single = job["system"].endswith("single")
    parts: list[list[float]] = []

    class Ordered(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # it is in tokens already

        def _get_train_sampler(self, train_dataset: Any = None) -> Rows:
            return Rows(len(train_dataset or self.train_dataset), 0)

        def training_step(self, *args: Any, **named: Any) -> Any:
            loss = super().training_step(*args, **named)
            margin = self._metrics["train"]["rewards/margins"][-1]
            parts.append([float(loss), float(margin)])
            if len(parts) == (BATCH if single else 1):
                # A part's loss comes divided by the number of parts.
                figures.append([sum(p[0] for p in parts), sum(p[1] for p in parts) / len(parts)])
                parts.clear()
            return loss

    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.append(time.perf_counter())

    where = locate(MODEL).name
    begun = time.perf_counter()
    live = job["system"] == "trl live"
    trainer = Ordered(
        model=AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
        if live
        else None,
        args=DPOConfig(
            output_dir=str(Path(job["folder"]) / "trl"),
            per_device_train_batch_size=1 if single else BATCH,
            gradient_accumulation_steps=BATCH if single else 1,
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            beta=BETA,
            max_length=None,
            precompute_ref_log_probs=not live,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(where),
        callbacks=[Clock()],
    )
    first = time.perf_counter()
    trainer.train()
    seen = [sum(sizes[: (i + 1) * BATCH]) for i in range(len(clock))]
    took = [at - first for at in clock]
    return measured(job, figures, took, seen, time.perf_counter() - begun)


def measured(
    job: dict[str, Any],
    figures: list[list[float]],
    seconds: list[float],
    tokens: list[int],
    whole: float,
) -> dict[str, Any]:
    """The figures of the gate, or speed after the first steps."""
    skip = job.get("skip")
    if skip is None:
        return {"figures": figures}
    took, seen = seconds[-1] - seconds[skip - 1], tokens[-1] - tokens[skip - 1]
    return {
        "tokens_per_second": seen / took,
        "tokens": tokens[-1],
        "train_seconds": round(whole, 1),
        "last_loss": figures[-1][0],
        "last_margin": figures[-1][1],
    }


if __name__ == "__main__":
    main()
