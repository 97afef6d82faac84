"""Sums found out by trying: greedy accuracy before GRPO and after it.

builtin:nano is first shown a few of the written sums (supervised, few steps), so that some of its
answers are right; GRPO then learns from right and wrong alone. Two figures: `tried`, the likeliest
answers to the sums that GRPO asks about, and `held`, those to sums that neither of them ever saw.

    python benchmarks/arithmetic.py --threads 2 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import call, interval, load, versions, write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "arithmetic.json"
BEFORE, AFTER = 0.4, 0.8


def main() -> None:
    """Makes the runs that are missing, one after another."""
    options = arguments()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    found = load(options.output)
    with tempfile.TemporaryDirectory(prefix="arithmetic-") as folder:
        for seed in options.seeds:
            if any(run["seed"] == seed for run in found["runs"]):
                continue
            job = {"system": "grpo", "seed": seed, "folder": folder, "threads": options.threads}
            job |= {"shown": options.shown, "steps": options.steps, "rate": options.rate}
            job |= {"largest": options.largest}
            found["runs"].append({"seed": seed, **call(__file__, job)})
            print(json.dumps(found["runs"][-1]), flush=True)
            write(options.output, found)
    gains = [run["tried"][1] - run["tried"][0] for run in found["runs"]]
    kept = all(run["tried"][0] < BEFORE and run["tried"][1] > AFTER for run in found["runs"])
    found["summary"] = {"gain_interval": interval(gains), "from_under_40_to_over_80": kept}
    found["versions"] = versions()
    write(options.output, found)
    print(json.dumps(found["summary"]))


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A warm start, then GRPO from it."""
    import luthier
    from luthier.demo.tasks import TEST, arithmetic

    folder = Path(job["folder"])
    rows = list(arithmetic(job["largest"]))
    random.Random(job["seed"]).shuffle(rows)
    held = round(TEST * len(rows))
    data = {
        "train": rows[held:],
        "validation": rows[:held],
        "template": "{prompt}",
        "check": "off",
    }
    common = {"seed": job["seed"], "threads": job["threads"], "device": "cpu", "trackers": []}
    shown = {
        "model": "builtin:nano",
        "objective": "sft",
        "method": "full",
        "data": {**data, "format": "prompt_response"},
        "training": {
            **common,
            "max_steps": job["shown"],
            "epochs": 1000,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "evaluate_every": 10**6,
        },
        "evaluation": {"metrics": ["exact_match"], "max_new_tokens": 8, "generate_rows": 200},
        "output": str(folder / "shown"),
    }
    luthier.train(shown, quiet=True)
    found = {
        "model": str(folder / "shown"),
        "objective": {
            "kind": "grpo",
            "rewards": "exact",
            "answers": 16,
            "max_new_tokens": 8,
            "scale": "none",
            "loss": "constant",
        },
        "method": "full",
        "data": {**data, "format": "checkable"},
        "training": {
            **common,
            "max_steps": job["steps"],
            "epochs": 1000,
            "batch_size": 32,
            "learning_rate": job["rate"],
            "schedule": "constant",
            "warmup": 10,
            "evaluate_every": 10**6,
        },
        "evaluation": {"max_new_tokens": 8, "generate_rows": 200},
        "output": str(folder / "tried"),
    }
    run = luthier.train(found, quiet=True)
    steps = [event for event in run.events if event["kind"] == "step"]
    reward = run.metrics["reward"]
    return {
        "tried": [accuracy(folder / name, rows[held:]) for name in ("shown", "tried")],
        "held": [reward["before"], reward["after"]],
        "held_interval": reward["interval"],
        "rewards": [round(event["rollout"]["reward"], 4) for event in steps],
        "seconds": round(steps[-1]["seconds"], 1),
    }


def accuracy(model: Path, rows: list[dict[str, str]]) -> float:
    """Share of the likeliest answers that are right."""
    from luthier.core.records import Origin, Prompt, Turn
    from luthier.data.template import TokenizerCodec
    from luthier.generation.sampling import Sampler, Sampling
    from luthier.models.load import load as load_model
    from luthier.rewards import exact

    loaded = load_model(str(model))
    codec = TokenizerCodec(loaded.tokenizer, template="{prompt}", max_length=loaded.context)
    asked = [
        Prompt(Origin("tried", line), (Turn("user", row["prompt"]),), {"answer": row["answer"]})
        for line, row in enumerate(rows, 1)
    ]
    made: Any = loaded.model
    sampler = Sampler(made.generating, loaded.tokenizer, codec.end_tokens, loaded.context)
    prompts = [codec.prompt(each.turns) for each in asked]
    answers = sampler.text(prompts, Sampling(max_new_tokens=8))
    scores = exact.Reward(exact.Config()).score(asked, answers)
    return round(sum(scores) / len(scores), 4)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--largest", type=int, default=9, help="largest number in a sum")
    parser.add_argument("--shown", type=int, default=32, help="steps of the warm start")
    parser.add_argument("--steps", type=int, default=400, help="steps of GRPO")
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
