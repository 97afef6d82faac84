"""English to Spanish by Luthier and by transformers' Seq2SeqTrainer: BLEU, time and memory.

30,000 sentence pairs (Tatoeba), and a small T5 from scratch whose tokenizer is trained on the
same pairs (recipes/translate.yaml). Both systems begin with the very same weights, tokenizer, rows
and order of the rows, with the same optimizer, schedule and label smoothing, in float32; answers
to the same held-out rows are searched with the same beams. Every run is a process of its own, and
what it gave is in the results before the next one starts: a script that was killed goes on where
it was.

`--parity` compares the loss of each of the first steps, without dropout.

    LUTHIER_DATA=… python benchmarks/translate.py --seeds 0 1 2
    LUTHIER_DATA=… python benchmarks/translate.py --parity
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# torch is imported by the workers alone: a child's peak memory begins at its parent's.

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "translate.json"
LIBRARIES = ("luthier", "torch", "transformers", "sacrebleu")
EPOCHS, BATCH, RATE, SMOOTHING = 3, 32, 5e-3, 0.1
#: Of the recipe, for both systems; Trainer's linear schedule is what both know.
COMMON = [
    f"training.epochs={EPOCHS}",
    f"training.batch_size={BATCH}",
    f"training.learning_rate={RATE}",
    f"objective.label_smoothing={SMOOTHING}",
    "training.schedule=linear",
    "training.warmup=100",
    "training.precision=float32",
    "training.device=cpu",
    "training.evaluate_every=100000",
    "training.trackers=[]",
    "evaluation.generate_rows=200",
    "evaluation.samples=3",
    "evaluation.num_beams=4",
]
FIGURES = ("bleu", "chrf", "perplexity")


def main() -> None:
    """Makes the runs asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--only", nargs="*", choices=["luthier", "trainer"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, help="train so many steps only, for a try")
    parser.add_argument("--parity", action="store_true", help="compare the losses of 20 steps")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    job = {"threads": options.threads, "steps": options.steps}
    if options.parity:
        store(options.output, parity=same({**job, "steps": options.steps or 20}))
        return
    for seed in options.seeds:
        for system in options.only or ["luthier", "trainer"]:
            run = {"system": system, "seed": seed, **job}
            known = load(options.output)["runs"]
            if any(all(old.get(k) == v for k, v in run.items()) for old in known):
                print(f"{system}, seed {seed}: there already", file=sys.stderr)
                continue
            found = call(run)
            print(f"{system}, seed {seed}: {json.dumps(found)}", file=sys.stderr, flush=True)
            store(options.output, run={**run, **found})


def call(job: dict[str, Any]) -> dict[str, Any]:
    """A worker's answer, which is its last line."""
    with tempfile.TemporaryDirectory() as place:
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
        sys.exit(f"{job['system']} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return answer


def same(job: dict[str, Any]) -> dict[str, Any]:
    """Losses of both without dropout, step by step, and how far they are apart."""
    made = {
        system: call({**job, "system": system, "seed": 0, "parity": True})["losses"]
        for system in ("luthier", "trainer")
    }
    ours, theirs = made.values()
    assert len(ours) == len(theirs) == job["steps"], "not the same number of steps"
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return {"steps": job["steps"], "largest_difference": max(apart), **made}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One system's run."""
    found = {"luthier": ours, "trainer": theirs}[job["system"]](job)
    found["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)
    return found


def changes(job: dict[str, Any]) -> list[str]:
    """What the recipe is given for a job."""
    made = [
        *COMMON,
        f"training.seed={job['seed']}",
        f"training.threads={job['threads']}",
        f"output={job['folder']}/run",
    ]
    if job["steps"]:
        made.append(f"training.max_steps={job['steps']}")
    if job.get("parity"):
        made += ["model.config.dropout_rate=0.0", "training.warmup=0", "training.log_every=1"]
        made += ["evaluation.generate_rows=0", "evaluation.samples=0", "evaluation.rows=1"]
        made += ["evaluation.prompts=[]"]
    return made


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`luthier.train`; seconds are those of the training loop."""
    import luthier
    import luthier.run as running
    from luthier.fit import fit
    from luthier.ready import find_recipe

    seconds, cpu = [0.0], [0.0]

    def timed(*args: Any, **named: Any) -> Any:
        begun, used = time.perf_counter(), time.process_time()
        outcome = fit(*args, **named)
        seconds[0], cpu[0] = time.perf_counter() - begun, time.process_time() - used
        return outcome

    running.fit = timed  # type: ignore[attr-defined]
    run = luthier.train(find_recipe("translate"), changes(job), quiet=True)
    steps = [event for event in run.events if event["kind"] == "step"]
    if job.get("parity"):
        return {"losses": [event["loss"] for event in steps]}
    return {
        "before": {name: run.metrics[name]["before"] for name in FIGURES},
        "after": {name: run.metrics[name]["after"] for name in FIGURES},
        "rows": run.evaluation["rows"],
        "steps": steps[-1]["step"],
        "train_seconds": round(seconds[0], 1),
        "train_cpu_seconds": round(cpu[0], 1),
        "samples": [
            {k: sample[k] for k in ("prompt", "reference", "before", "after")}
            for sample in run.samples[:4]
        ],
    }


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """Seq2SeqTrainer on the model, rows and order that the recipe makes."""
    import torch
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    from luthier import environment
    from luthier.assemble import assemble
    from luthier.core.recipe import load as load_recipe
    from luthier.data.order import epoch_order
    from luthier.ready import find_recipe

    recipe = load_recipe(find_recipe("translate"), changes(job))
    environment.prepare(recipe.training)
    parts = assemble(recipe, lambda _line: None)
    tokenizer, module = parts.loaded.tokenizer, parts.loaded.model.module
    records = parts.train[0].records
    texts = tokenizer(
        [record.source for record in records],  # type: ignore[attr-defined]
        text_target=[record.target for record in records],  # type: ignore[attr-defined]
    )
    rows = [{key: texts[key][i] for key in texts} for i in range(len(records))]

    class Rows(torch.utils.data.Sampler[int]):
        epoch = 0

        def __len__(self) -> int:
            return len(rows)

        def __iter__(self) -> Iterator[int]:
            self.epoch += 1
            return iter(epoch_order(len(rows), job["seed"], self.epoch - 1).tolist())

    losses: list[float] = []

    class Ordered(Seq2SeqTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Rows:
            return Rows()

        def training_step(self, *args: Any, **named: Any) -> Any:
            loss = super().training_step(*args, **named)
            losses.append(float(loss))
            return loss

    warmup = 0 if job.get("parity") else 100
    trainer = Ordered(
        model=module,
        args=Seq2SeqTrainingArguments(
            output_dir=f"{job['folder']}/trainer",
            per_device_train_batch_size=BATCH,
            num_train_epochs=EPOCHS,
            max_steps=job["steps"] or -1,
            learning_rate=RATE,
            lr_scheduler_type="linear",
            warmup_steps=warmup,
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            label_smoothing_factor=SMOOTHING,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=job["seed"],
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=module),
    )
    begun, used = time.perf_counter(), time.process_time()
    done = trainer.train()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    if job.get("parity"):
        return {"losses": losses}
    return {
        "after": scores(parts),
        "steps": done.global_step,
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(cpu, 1),
    }


def scores(parts: Any) -> dict[str, float]:
    """The model as it stands on the held-out rows, as a run measures it."""
    from luthier.core import kinds
    from luthier.evaluation.measure import measure
    from luthier.measuring import measured, metric_configs

    part, encoded = parts.validation
    side = measured(parts, parts.loaded, list(encoded.examples), list(part.records), [])
    found = {}
    for config in metric_configs(parts):
        metric = kinds.build("metrics", config)
        measure([metric], side.scored)
        for name, rows in metric.rows().items():
            if name in FIGURES:
                found[name] = float(metric.reduce(name, rows.sum(0)))
    return found


def load(output: Path) -> dict[str, Any]:
    """The results so far."""
    empty: dict[str, Any] = {"runs": []}
    return json.loads(output.read_text(encoding="utf-8")) if output.exists() else empty


def store(
    output: Path, run: dict[str, Any] | None = None, parity: dict[str, Any] | None = None
) -> None:
    """Adds to the results."""
    found = load(output)
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if run is not None:
        found["runs"].append({**run, "versions": versions})
    if parity is not None:
        found["parity"] = {**parity, "versions": versions}
    found["machine"] = {"cpu": processor(), "cores": os.cpu_count()}
    temporary = output.with_suffix(".part")
    temporary.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(output)


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(runs: list[dict[str, Any]]) -> Iterator[str]:
    """The systems as a Markdown table, means over their seeds."""
    yield "| system | seeds | BLEU | chrF | perplexity | training | CPU time | peak memory |"
    yield "|---|---|---|---|---|---|---|---|"
    mine = [run for run in runs if run["system"] == "luthier"]
    if mine:
        before = [_spread([run["before"][name] for run in mine]) for name in FIGURES]
        yield f"| before | {len(mine)} | {' | '.join(before)} | | | |"
    for system, name in (("luthier", "Luthier"), ("trainer", "Seq2SeqTrainer")):
        chosen = [run for run in runs if run["system"] == system]
        if chosen:
            after = [_spread([run["after"][name] for run in chosen]) for name in FIGURES]
            times = [
                f"{statistics.mean(run[key] for run in chosen):,.0f} s"
                for key in ("train_seconds", "train_cpu_seconds")
            ]
            peak = max(run["peak_gb"] for run in chosen)
            yield (
                f"| {name} | {len(chosen)} | {' | '.join(after)} | {' | '.join(times)} "
                f"| {peak:.2f} GB |"
            )


def _spread(values: list[float]) -> str:
    """A mean, and the range over the seeds."""
    middle = f"{statistics.mean(values):,.2f}"
    if len(values) < 2:
        return middle
    return f"{middle} ({min(values):,.2f} to {max(values):,.2f})"


def section(found: dict[str, Any]) -> str:
    """Luthier beside Seq2SeqTrainer: answers, time, memory, and that both compute the same."""
    lines = [
        "## Translation: a small T5 from scratch, beside transformers' Seq2SeqTrainer",
        "",
        "English to Spanish, 30,000 sentence pairs (Tatoeba, CC-BY-2.0-FR, tatoeba.org), 3 % held "
        "out; T5 of 2.3 million parameters and its tokenizer from nothing "
        f"(`recipes/translate.yaml`), {EPOCHS} epoch{'s' if EPOCHS > 1 else ''}: a first start, "
        "not a good translator. Both begin with the same weights and take the same rows in the "
        "same order, with one optimizer, schedule and label smoothing, in float32; BLEU and chrF "
        "of 200 held-out rows, beams of 4; means over seeds and their range "
        "(`benchmarks/translate.py`).",
    ]
    runs = found["runs"]
    if runs:
        newest = runs[-1]["versions"]
        named = ", ".join(f"{name} {newest[name]}" for name in ("torch", "transformers"))
        threads = runs[-1]["threads"]
        lines += [
            "",
            *table(runs),
            "",
            f"{threads} thread{'s' if threads > 1 else ''}, {named}. The machine was shared: CPU "
            "time says more than the clock.",
        ]
    if "parity" in found:
        same = found["parity"]
        lines += [
            "",
            f"Without dropout the losses of each of {same['steps']} steps are at most "
            f"{same['largest_difference']:.1e} apart: packed rows here, padded ones there.",
        ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
