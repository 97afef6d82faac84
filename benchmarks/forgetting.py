"""What continued pretraining makes `builtin:nano` forget, and what replay and a pull save.

    LUTHIER_DATA=… python benchmarks/forgetting.py [--seeds 0 1 2] [--only replay] [--steps N]

The bundled model, which wrote stories, learns Tiny Shakespeare. Both are measured before and
after on rows that it never saw: the last tenth of the plays, and the stories that its own
pretraining held out. Replayed stories are those that it was trained on. Each run is a process of
its own; one that is in the results file already is not made again.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import luthier
from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.data.parts import read_parts
from luthier.ready import find_recipe

RESULTS = Path(__file__).resolve().parent / "results" / "forgetting.json"
#: What each way adds to `retain`.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "replay 5 %": {"replay": 0.05},
    "replay 25 %": {"replay": 0.25},
    "kl 0.5": {"kl": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", choices=WAYS, action="append")
    parser.add_argument("--steps", type=int, help="fewer steps, for a try")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(trained(json.loads(asked.child))))
        return
    found: dict[str, Any] = {"runs": []}
    if RESULTS.is_file():
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        files = stories(Path(folder))
        for seed in asked.seeds:
            for way in asked.only or WAYS:
                key = {"way": way, "seed": seed, "steps": asked.steps}
                if any(key.items() <= run.items() for run in found["runs"]):
                    continue
                job = json.dumps({**key, **files, "output": f"{folder}/{way}-{seed}"})
                words = [sys.executable, __file__, "--child", job]
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                found["runs"].append({**key, **json.loads(done.stdout.splitlines()[-1])})
                RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(json.dumps(found["runs"][-1]), flush=True)
    print("\n".join(table(found)))


def stories(folder: Path) -> dict[str, str]:
    """The stories that the model was trained on and those that were held out, as files."""
    path = f"{os.environ['LUTHIER_DATA']}/corpus/stories.jsonl.xz"
    recipe = recipes.load(find_recipe("pretrain-nano"))
    spec = recipe.data.model_copy(update={"train": path, "check": "off", "group": "none"})
    objective = kinds.build("objectives", recipe.objective)
    sides = read_parts(spec, objective, recipe.training.seed, lambda _line: None)
    with lzma.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    made = {}
    for name, part in zip(("learned", "held"), sides, strict=True):
        assert part is not None
        made[name] = str(folder / f"{name}.jsonl")
        rows = "".join(lines[record.origin.line - 1] + "\n" for record in part.records)
        Path(made[name]).write_text(rows, encoding="utf-8")
    return made


def trained(job: dict[str, Any]) -> dict[str, Any]:
    """One run's figures: bits per byte of the plays and of the stories, before and after."""
    how = WAYS[job["way"]]
    rows = {"rows": job["held"]}
    if "replay" in how:
        rows = {"rows": job["learned"], "validation": job["held"]}
    words = [f"training.seed={job['seed']}", f"output={job['output']}", "evaluation.samples=0"]
    words += ["evaluation.metrics=[perplexity]", "training.trackers=[]"]
    if job["steps"]:
        words.append(f"training.max_steps={job['steps']}")
    recipe = recipes.load(find_recipe("shakespeare"), words).plain()
    run = luthier.train({**recipe, "retain": {**rows, **how}}, quiet=True)
    sides = {"plays": run.metrics, "stories": run.evaluation["retained"]["metrics"]}
    return {
        side: {moment: figures["bits_per_byte"][moment] for moment in ("before", "after")}
        for side, figures in sides.items()
    }


def section(found: dict[str, Any]) -> str:
    """What was forgotten, by way, as a part of the page of results."""
    return "\n".join(
        [
            "## Forgetting: the bundled model learns plays, and its stories are measured",
            "",
            "`builtin:nano` wrote stories; all of it learns Tiny Shakespeare "
            "(`recipes/shakespeare.yaml`). Plays and stories are rows that it never saw; replayed "
            "stories are those of its pretraining, as that share of an epoch's examples; `kl` "
            "pulls it towards the model that it began as. Means over seeds, their range behind "
            "them (`benchmarks/forgetting.py`).",
            "",
            *table(found),
            "",
        ]
    )


def table(found: dict[str, Any]) -> list[str]:
    """The ways as a Markdown table."""
    lines = [
        "| bits per byte, lower is better | plays, before | after | stories, before | after |",
        "|---|---|---|---|---|",
    ]
    for way in WAYS:
        runs = [run for run in found["runs"] if run["way"] == way and run["steps"] is None]
        if runs:
            cells = [_spread(runs, s, m) for s in ("plays", "stories") for m in ("before", "after")]
            counted = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
            lines.append(f"| {way}, {counted} | {' | '.join(cells)} |")
    return lines


def _spread(runs: list[dict[str, Any]], side: str, moment: str) -> str:
    values = [run[side][moment] for run in runs]
    mean = statistics.mean(values)
    if len(values) < 2 or moment == "before":
        return f"{mean:.3f}"
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
