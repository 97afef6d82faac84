"""Puts a finished pretraining run into the package as builtin:nano, in 16 bits, with its card.

luthier train recipes/pretrain-nano.yaml
python tools/bundle_nano.py runs/nano
python benchmarks/storybooks.py --output benchmarks/results/storybooks.json
python tools/bundle_nano.py runs/nano --card benchmarks/results/storybooks.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from luthier.core.rundir import RunDir, read_lines
from luthier.models.load import BUILTIN, load
from luthier.ready import find_recipe

FOLDER = BUILTIN / "nano"
LIMIT = 16 * 2**20


def main() -> None:
    """Bundles the run's model, then writes its card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--card", type=Path, help="only the card, with these measurements")
    arguments = parser.parse_args()
    if arguments.card is None:
        bundle(arguments.run)
    else:
        figures = json.loads(arguments.card.read_text(encoding="utf-8"))
        (FOLDER / "README.md").write_text(card(RunDir(arguments.run), figures), encoding="utf-8")


def bundle(run: Path) -> None:
    """Weights in float16, tokenizer, template, generation config and the recipe."""
    loaded = load(str(run))
    module: Any = loaded.model.base.to(torch.float16)
    FOLDER.mkdir(parents=True, exist_ok=True)
    module.save_pretrained(FOLDER)
    loaded.tokenizer.save_pretrained(FOLDER)
    recipe = find_recipe("pretrain-nano").read_text(encoding="utf-8")
    (FOLDER / "recipe.yaml").write_text(recipe, encoding="utf-8")
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{size / 2**20:.1f} MB in {FOLDER}")
    assert size <= LIMIT, "larger than what the package may carry"


def card(run: RunDir, figures: dict[str, Any]) -> str:
    """The model card."""
    stages = sorted(path for path in run.path.glob("[0-9]-*") if path.is_dir())
    lines, tokens, seconds = [], 0, 0.0
    for stage in stages:
        last = [e for e in read_lines(RunDir(stage).events) if e["kind"] == "step"][-1]
        held = [e for e in read_lines(RunDir(stage).events) if e["kind"] == "validation"][-1]
        tokens += last["tokens"]
        seconds += last["seconds"]
        lines.append(
            f"| {stage.name} | {last['step']:,} | {last['tokens']:,} | {held['loss']:.3f} |"
        )
    nano, rival = (figures["bits_per_byte"][n] for n in ("builtin:nano", "stories260k"))
    low, high = figures["difference_interval"]
    return _CARD.format(
        stages="\n".join(lines),
        tokens=f"{tokens / 1e6:.1f}",
        minutes=f"{seconds / 60:.0f}",
        nano=nano,
        rival=rival,
        low=low,
        high=high,
        books=figures["storybooks"],
        bytes=f"{figures['bytes']:,}",
    )


_CARD = """---
license: apache-2.0
language: en
library_name: transformers
tags: [luthier, base-model]
---

# builtin:nano

A small Llama for trying things out: 5.2 million parameters (hidden size 256, 6 layers, 4 heads, 2
of them for keys and values, context 1,024), a byte-level BPE vocabulary of 4,096 in which every
digit is a token, a chat template with `<|user|>`, `<|assistant|>` and `<|end|>`. Trained from
scratch by Luthier itself; `recipe.yaml` beside this card is the recipe
(`luthier train recipes/pretrain-nano.yaml`, then `python tools/bundle_nano.py runs/nano`).

## Data

Books in simple English (public domain, US), children's stories (CC-BY, public domain and
CDLA-Sharing-1.0, per row) and everyday conversations with an assistant (dstc8 schema-guided
dialogue, CC-BY-SA-4.0). A tenth of the rows of each source was held out.

| stage | steps | tokens seen | held-out loss (nats a token) |
|---|---|---|---|
{stages}

{tokens} million tokens in all, {minutes} minutes of training on two CPU cores that did other work
as well.

## Quality

On {books} held-out storybooks ({bytes} bytes): **{nano} bits per byte**; stories260k, a public
260,032-parameter Llama trained on children's stories, needs {rival} on the same books
(difference, 95 % interval: {low} to {high}). Made by `benchmarks/storybooks.py`.

## Limits

It has read {tokens} million tokens, a thousandth of what small models usually see. It writes short
simple sentences, and knows next to nothing: do not ask it for facts. It is a base for learning
fine-tuning and for tests, not a model to build on. Its training texts are old books and staged
dialogues and carry their views and their gaps. English only.
"""

if __name__ == "__main__":
    main()
