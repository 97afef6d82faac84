"""Continuations that please a judge: mean positive probability before and after PPO and GRPO.

A judge (builtin:nano with LoRA) learns 5,000 labelled sentences; a language model (builtin:nano in
full) learns to write sentences of both tones; PPO and GRPO then learn from the judge alone. Of 300
sampled continuations of held-out beginnings are measured: the judge's mean probability, perplexity
under the model before, and distinct-2, the share of different pairs of words.

Kept to: the judge is right in over 95 % of held-out sentences, the model before is near one half,
the one after is at 0.9 or above, its perplexity under the one before within 1.5 times.

    python benchmarks/sentiment.py --threads 2 --seeds 0
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import call, load, versions, write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "sentiment.json"
NEW, SAMPLES, HELD = 24, 300, 60
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ppo": {"objective": {"kind": "ppo", "kl": 0.05}, "batch_size": 64, "rate": 5e-5},
    "grpo": {
        "objective": {"kind": "grpo", "kl": 0.05, "answers": 8},
        "batch_size": 16,
        "rate": 5e-5,
    },
}


def main() -> None:
    """Judge and writer once a seed, then each objective that is missing."""
    options = arguments()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    found = load(options.output)
    with tempfile.TemporaryDirectory(prefix="sentiment-") as folder:
        for seed in options.seeds:
            job = {"folder": folder, "seed": seed, "threads": options.threads}
            job |= {"system": "before", "steps": options.steps, "home": f"{folder}/{seed}"}
            missing = [
                name
                for name in options.only or OBJECTIVES
                if not any(r["seed"] == seed and r["system"] == name for r in found["runs"])
            ]
            if not missing:
                continue
            start = call(__file__, job)
            for name in missing:
                after = call(__file__, {**job, "system": name})
                found["runs"].append({"seed": seed, "system": name, "start": start, **after})
                print(json.dumps(found["runs"][-1]), flush=True)
                write(options.output, found)
    found["summary"] = [kept_to(run) for run in found["runs"]]
    found["versions"] = versions()
    write(options.output, found)
    for line in found["summary"]:
        print(json.dumps(line))


def kept_to(run: dict[str, Any]) -> dict[str, Any]:
    """Whether a run is what the head of this file promises."""
    start = run["start"]
    return {
        "seed": run["seed"],
        "system": run["system"],
        "judge_over_95": start["judge_accuracy"] > 0.95,
        "near_half_before": abs(start["positive"] - 0.5) < 0.1,
        "at_least_09_after": run["positive"] >= 0.9,
        "perplexity_ratio": round(run["perplexity"] / start["perplexity"], 3),
        "perplexity_within_1.5": run["perplexity"] <= 1.5 * start["perplexity"],
        "distinct_2": [start["distinct_2"], run["distinct_2"]],
    }


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Judge and writer, or one objective from the writer."""
    return begin(job) if job["system"] == "before" else tune(job)


def common(job: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Settings of training that all runs share."""
    return {
        "seed": job["seed"],
        "threads": job["threads"],
        "device": "cpu",
        "trackers": [],
        "evaluate_every": 10**6,
        **more,
    }


def begin(job: dict[str, Any]) -> dict[str, Any]:
    """The judge, the writer, and the writer's figures."""
    import luthier
    from luthier.demo.sentences import write as write_sentences

    home = Path(job["home"])
    files = write_sentences(home / "data", job["seed"])
    judge = luthier.train(
        {
            "model": "builtin:nano",
            "objective": "classification",
            "method": {"kind": "lora", "rank": 8},
            "data": {
                "train": str(files["train"]),
                "validation": str(files["test"]),
                "check": "off",
            },
            "training": common(job, epochs=1, batch_size=32, learning_rate=2e-3),
            "evaluation": {"before": False, "resamples": 100},
            "output": str(home / "judge"),
        },
        quiet=True,
    )
    luthier.train(
        {
            "model": "builtin:nano",
            "objective": "language_modeling",
            "method": "full",
            "data": {
                "train": str(files["train"]),
                "validation": 0.05,
                "format": "text",
                "check": "off",
            },
            "training": common(job, epochs=2, batch_size=32, learning_rate=1e-3),
            "evaluation": {"before": False, "samples": 0, "resamples": 100},
            "output": str(home / "writer"),
        },
        quiet=True,
    )
    accuracy = judge.metrics["accuracy"]["after"]
    return {"judge_accuracy": accuracy, **measured(job, home / "writer")}


def tune(job: dict[str, Any]) -> dict[str, Any]:
    """One objective, and the tuned model's figures."""
    import luthier

    home, how = Path(job["home"]), OBJECTIVES[job["system"]]
    rows = [json.loads(line) for line in (home / "data/beginnings.jsonl").open(encoding="utf-8")]
    reward = {"kind": "classifier", "model": str(home / "judge"), "label": "positive"}
    run = luthier.train(
        {
            "model": str(home / "writer"),
            "objective": {
                **how["objective"],
                "rewards": {**reward, "read": "both"},
                "max_new_tokens": NEW,
            },
            "method": "full",
            "data": {
                "train": rows[HELD:],
                "validation": rows[:HELD],
                "template": "{prompt}",
                "check": "off",
            },
            "training": common(
                job,
                max_steps=job["steps"],
                epochs=10_000,
                batch_size=how["batch_size"],
                learning_rate=how["rate"],
                schedule="constant",
                warmup=5,
            ),
            "evaluation": {"before": False, "samples": 4, "generate_rows": 4, "resamples": 100},
            "output": str(home / job["system"]),
        },
        quiet=True,
    )
    steps = [event for event in run.events if event["kind"] == "step"]
    return {
        "rewards": [round(event["rollout"]["reward"], 4) for event in steps],
        "seconds": round(steps[-1]["seconds"], 1),
        **measured(job, home / job["system"]),
    }


def measured(job: dict[str, Any], model: Path) -> dict[str, Any]:
    """Tone, perplexity under the writer, and variety of sampled continuations."""
    import luthier
    from luthier.chat import Chat
    from luthier.generation.sampling import Sampling

    home = Path(job["home"])
    rows = [json.loads(line) for line in (home / "data/beginnings.jsonl").open(encoding="utf-8")]
    beginnings = [row["prompt"] for row in rows[:HELD]] * (SAMPLES // HELD)
    how = Sampling(max_new_tokens=NEW, temperature=1.0, seed=job["seed"])
    said = Chat.open(str(model)).completions(beginnings, how)
    texts = [first + rest for first, rest in zip(beginnings, said, strict=True)]
    judge = luthier.open(str(home / "judge"))
    tones = [each.probabilities["positive"] for each in judge.predict(texts)]
    return {
        "positive": round(statistics.mean(tones), 4),
        "perplexity": round(perplexity(home / "writer", beginnings, said), 3),
        "distinct_2": round(distinct(said), 4),
        "examples": texts[:5],
    }


def perplexity(model: Path, beginnings: list[str], said: list[str]) -> float:
    """Of the continuations under a model, token by token."""
    import torch

    from luthier.core.records import Origin, causal_example
    from luthier.data.template import TokenizerCodec
    from luthier.evaluation.measure import score_losses
    from luthier.models.load import load as load_model

    loaded = load_model(str(model))
    codec = TokenizerCodec(loaded.tokenizer, max_length=loaded.context)
    examples = []
    for line, (first, rest) in enumerate(zip(beginnings, said, strict=True), 1):
        tokens = (codec.tokenizer.encode(text, add_special_tokens=False) for text in (first, rest))
        shown, learned = tokens
        if learned:
            pieces = [(shown, False), (learned, True)]
            examples.append(causal_example(pieces, Origin("said", line)))
    with torch.no_grad():
        scored = score_losses(loaded.model, examples, codec)  # type: ignore[arg-type]
    losses = [float(loss) for each in scored for loss in each.losses]  # type: ignore[union-attr]
    return math.exp(statistics.mean(losses))


def distinct(texts: list[str]) -> float:
    """The share of different pairs of neighbouring words."""
    pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
    return len(set(pairs)) / max(1, len(pairs))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
