"""GRPO by Luthier and by TRL's GRPOTrainer: answers sampled a second, and seconds of a whole step.

The same weights (builtin:nano), prompts, answers a prompt, longest answer, temperature 1, full
fine-tuning, AdamW, float32, no pull towards the start, one update a rollout; the reward counts
letters. The learning rate is so small that the weights stay what they are, so that both systems
draw answers of the same lengths; where their means are further apart than chance allows (three
standard errors) and a tenth, nothing is written. Two workloads: answers that end when they end, and
answers that all run to the bound (no token ends them). Each measurement is a process of its own, in
turn; the first step is not counted.

    pip install -e '.[bench]' -c constraints.txt
    python benchmarks/grpo.py --threads 2 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import call, load, processor, write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "grpo.json"
SYSTEMS = ("luthier", "trl")
#: With ``--only``: TRL over transformers' continuous batching, which is made for GPUs.
MORE = ("trl continuous",)
WORKLOADS = {"as they end": False, "to the bound": True}
RATE = 1e-9
NEAR = 0.1
QUESTIONS = (
    "Tell me of a fox who could count.",
    "What shall I cook tonight?",
    "Where does the river go?",
    "Why is the sky dark at night?",
    "Say good morning to my friend.",
    "What does a baker do?",
    "How do I write a letter?",
    "Tell me a short story.",
)


def main() -> None:
    """Measures what is missing, one process after another."""
    options = arguments()
    if options.worker:
        job = json.loads(options.worker)
        print(json.dumps(ours(job) if job["system"] == "luthier" else theirs(job)))
        return
    found = load(options.output)
    with tempfile.TemporaryDirectory(prefix="grpo-") as folder:
        for workload, bound in WORKLOADS.items():
            runs = []
            for repeat in range(options.repeats):
                for system in options.only or SYSTEMS:
                    job = {
                        "system": system,
                        "workload": workload,
                        "bound": bound,
                        "folder": folder,
                        "threads": options.threads,
                        "steps": options.steps,
                        "prompts": options.prompts,
                        "answers": options.answers,
                        "tokens": options.tokens,
                        "seed": repeat,
                    }
                    runs.append({**settings(job), **call(__file__, job)})
                    print(json.dumps(runs[-1]), flush=True)
            check(runs)
            found["runs"] += runs
    found["summary"] = summary(found["runs"])
    write(options.output, found)
    for line in found["summary"]:
        print(line)


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """Of a run, as they are kept."""
    return {name: value for name, value in job.items() if name not in ("folder", "bound")}


def check(runs: list[dict[str, Any]]) -> None:
    """Rejects a comparison of answers that are not of the same lengths."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(run["system"], []).append(run)
    each = {n: statistics.mean(run["length"] for run in group) for n, group in found.items()}
    errors = [
        statistics.mean(run["length_spread"] ** 2 / run["answers_seen"] for run in group)
        / len(group)
        for group in found.values()
    ]
    apart = max(each.values()) - min(each.values())
    if apart > NEAR * min(each.values()) and apart > 3 * math.sqrt(sum(errors)):
        sys.exit(f"answers of different lengths are compared: {each}")


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over repeats, and their spread."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        key = tuple(run[n] for n in ("workload", "prompts", "answers", "tokens", "system"))
        groups.setdefault(key, []).append(run)
    made = []
    for key, each in groups.items():
        line = dict(zip(("workload", "prompts", "answers", "tokens", "system"), key, strict=True))
        for name in ("samples_per_second", "sampling_seconds", "step_seconds", "length"):
            values = sorted(run[name] for run in each)
            line[name] = statistics.median(values)
            line[f"{name}_range"] = [values[0], values[-1]]
        made.append(line)
    return made


def rows(count: int) -> list[dict[str, str]]:
    """Prompts, the same for both."""
    return [{"prompt": QUESTIONS[i % len(QUESTIONS)]} for i in range(count)]


def letters(text: str) -> float:
    """The reward: the share of signs that are letters."""
    return sum(sign.isalpha() for sign in text) / max(1, len(text))


def measured(
    job: dict[str, Any], steps: list[float], sampling: list[float], lengths: list[int]
) -> dict[str, Any]:
    """The figures of a run, its first step left out."""
    count = job["prompts"] * job["answers"]
    middle = statistics.median(sampling[1:])
    return {
        "step_seconds": round(statistics.median(steps[1:]), 4),
        "sampling_seconds": round(middle, 4),
        "samples_per_second": round(count / middle, 2),
        "length": round(statistics.mean(lengths), 2),
        "length_spread": round(statistics.pstdev(lengths), 2),
        "answers_seen": len(lengths),
        "cpu": processor(),
    }


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Through ``luthier.train``."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import luthier
    from luthier.engine.online import OnlineLoop
    from luthier.generation.rollout import RolloutGenerator

    steps: list[float] = []
    sampling: list[float] = []
    lengths: list[int] = []
    step, sample = OnlineLoop._step, RolloutGenerator.sample

    def stepping(self: OnlineLoop) -> None:
        begun = time.perf_counter()
        step(self)
        steps.append(time.perf_counter() - begun)

    def sampled(self: RolloutGenerator, *args: Any, **named: Any) -> Any:
        if job["bound"]:
            self._end = frozenset()
        begun = time.perf_counter()
        groups = sample(self, *args, **named)
        sampling.append(time.perf_counter() - begun)
        lengths.extend(len(answer.tokens) for group in groups for answer in group)
        return groups

    OnlineLoop._step, RolloutGenerator.sample = stepping, sampled  # type: ignore[method-assign]
    recipe = {
        "model": "builtin:nano",
        "objective": {
            "kind": "grpo",
            "answers": job["answers"],
            "max_new_tokens": job["tokens"],
            "rewards": {"kind": "function", "function": "grpo:rewarded"},
        },
        "method": "full",
        "data": {"train": rows(job["prompts"]), "validation": 0, "check": "off"},
        "training": {
            "max_steps": job["steps"] + 1,
            "epochs": 10_000,
            "batch_size": job["prompts"],
            "learning_rate": RATE,
            "schedule": "constant",
            "precision": "float32",
            "save_every": 10**6,
            "seed": job["seed"],
            "threads": job["threads"],
            "device": "cpu",
            "trackers": [],
        },
        "output": str(Path(job["folder"]) / "run"),
    }
    luthier.train(recipe, quiet=True)
    return measured(job, steps, sampling, lengths)


def rewarded(prompt: str, answer: str, check: Any) -> float:
    """As Luthier calls a reward."""
    del prompt, check
    return letters(answer)


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """Through TRL's trainer, its other settings as they come."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from luthier.models.load import load as load_model

    torch.set_num_threads(job["threads"])
    loaded = load_model("builtin:nano")
    model, tokenizer = loaded.model.module, loaded.tokenizer
    model.config._attn_implementation = "sdpa"
    tokenizer.padding_side = "left"
    steps: list[float] = []
    sampling: list[float] = []
    lengths: list[int] = []

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **named: Any) -> Any:
            self.begun = time.perf_counter()
            return super().training_step(*args, **named)

        def _generate_single_turn(self, *args: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            found = super()._generate_single_turn(*args, **named)
            sampling.append(time.perf_counter() - begun)
            return found

    def reward(completions: Any, completion_ids: Any, **_: Any) -> list[float]:
        lengths.extend(len(ids) for ids in completion_ids)
        said = [c[0]["content"] if isinstance(c, list) else c for c in completions]
        return [letters(text) for text in said]

    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.append(time.perf_counter() - trainer.begun)

    count = job["prompts"] * job["answers"]
    own = {"min_new_tokens": job["tokens"]} if job["bound"] else {}
    asked = ([{"role": "user", "content": row["prompt"]}] for row in rows(job["prompts"]))
    prompts = [{"prompt": turns} for turns in asked]
    trainer = Timed(
        model=model,
        processing_class=tokenizer,
        reward_funcs=reward,
        train_dataset=Dataset.from_list(prompts * (job["steps"] + 1)),
        callbacks=[Clock()],
        args=GRPOConfig(
            output_dir=str(Path(job["folder"]) / "trl"),
            per_device_train_batch_size=count,
            gradient_accumulation_steps=1,
            num_generations=job["answers"],
            max_completion_length=job["tokens"],
            max_steps=job["steps"] + 1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            temperature=1.0,
            beta=0.0,
            generation_kwargs=own or None,
            use_transformers_continuous_batching=job["system"] == "trl continuous",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=job["seed"],
        ),
    )
    trainer.train()
    return measured(job, steps, sampling, lengths)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--only", nargs="*", choices=(*SYSTEMS, *MORE))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
