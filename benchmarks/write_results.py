"""Runs what docs/results.md reports and writes the page from the runs' own figures.

    python benchmarks/write_results.py [--runs FOLDER]

A run that is finished in FOLDER (default runs/results) is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import banking77
import distil
import dpo
import entities
import forgetting
import frozen
import qlora
import repurpose
import reward
import storybooks
import translate
import trl_sft

import luthier
from luthier.core.rundir import RunDir, read_lines
from luthier.demo.command import run as run_demo
from luthier.ready import find_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results"
#: Results by file name, and what makes a section of each.
SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "banking77": banking77.section,
    "banking77_adapter": banking77.adapter_section,
    "distil": distil.section,
    "repurpose": repurpose.section,
    "frozen": frozen.section,
    "entities": entities.section,
    "translate": translate.section,
    "forgetting": forgetting.section,
    "qlora": qlora.section,
    "storybooks": storybooks.section,
    "trl_sft": trl_sft.section,
    "reward": reward.section,
    "dpo": dpo.section,
}

HEAD = """# Results

Written by `benchmarks/write_results.py` from the runs' own figures; nothing here is typed by hand.
Each table compares the same held-out rows before and after; intervals are 95 % paired bootstrap
intervals of the difference, p-values paired approximate randomisation (10,000 each). One seed a
run, except where seeds are counted: how far another seed would differ is not shown here.
"""

CASES = {
    "demo": "Customer support: LoRA on `builtin:nano`, the demo's own data (`luthier demo`)",
    "dolly": "Instructions: LoRA on `builtin:nano`, Dolly (1,000 rows, CC-BY-SA-3.0, "
    "github.com/mosaicml/llm-foundry)",
    "shakespeare": "Continued pretraining: all of `builtin:nano`, Tiny Shakespeare (1.1 MB, "
    "github.com/karpathy/char-rnn)",
}


def main() -> None:
    """Makes the missing runs and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    folder = parser.parse_args().runs
    parts = [HEAD]
    for name, title in CASES.items():
        where = folder / name
        if not RunDir(where).finished:
            _make(name, where)
        parts.append(_section(title, RunDir(where)))
    for name, section in SECTIONS.items():
        file = RESULTS / f"{name}.json"
        if file.is_file():
            parts.append(section(json.loads(file.read_text(encoding="utf-8"))))
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def _make(name: str, where: Path) -> None:
    if name == "demo":
        run_demo(str(where))
    else:
        luthier.train(find_recipe(name), [f"output={where}"])


def _section(title: str, run: RunDir) -> str:
    found = json.loads(run.evaluation.read_text(encoding="utf-8"))
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    steps = [e for e in read_lines(run.events) if e["kind"] == "step"]
    counts, last = environment["data"]["train"], steps[-1]
    parameters = environment["parameters"]
    lines = [
        f"## {title}",
        "",
        f"{counts['rows']:,} training rows ({counts['tokens']:,} tokens, {counts['targets']:,} "
        f"learned), {found['rows']:,} held out; {parameters['trainable']:,} of "
        f"{parameters['total']:,} parameters trained; {last['step']:,} steps in "
        f"{last['seconds']:.0f} s, {environment['precision']}, {environment['threads']} threads.",
        "",
        "| metric | before | after | difference (interval) | p |",
        "|---|---|---|---|---|",
        *(_row(name, figure) for name, figure in found["metrics"].items()),
        "",
        *_sample(run),
    ]
    return "\n".join(lines)


def _row(name: str, f: dict[str, Any]) -> str:
    low, high = f["interval"]
    p = "< 0.001" if f["p_value"] < 0.001 else f"{f['p_value']:.3f}"
    return (
        f"| {name} | {f['before']:.4g} | {f['after']:.4g} | {f['difference']:+.4g} "
        f"({low:+.4g} to {high:+.4g}) | {p} |"
    )


def _sample(run: RunDir) -> list[str]:
    """The first held-out prompt, answered by both."""
    sample = next(read_lines(run.samples), None)
    if sample is None:
        return []
    return [
        "The first held-out prompt:",
        "",
        *(f"- **{key}**: {_line(sample[key])}" for key in ("prompt", "before", "after")),
        "",
    ]


def _line(text: str, most: int = 300) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= most else flat[:most] + " …"


if __name__ == "__main__":
    main()
