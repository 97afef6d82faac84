"""Bits per byte of two models on storybooks that neither was trained on.

The bundled model against stories260k (a public 260,032-parameter Llama), on the storybook rows of
corpus/stories that the bundled model's recipe held out. TinyStories rows are left out, which
stories260k may have seen, and so are rows that share many word 8-grams with a training row.

    python benchmarks/storybooks.py [--model builtin:nano] [--output results.json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.recipe import load as load_recipe
from luthier.core.records import Origin, Record, Text
from luthier.data.length import fit
from luthier.data.parts import read_parts
from luthier.data.sources import read
from luthier.data.template import TokenizerCodec
from luthier.evaluation.measure import score_losses
from luthier.models.load import load

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ["LUTHIER_DATA"])
#: Both models are given this much context, the smaller one's limit.
WINDOW = 256
SHARED = 0.2


def main() -> None:
    """Prints and writes the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="builtin:nano")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    books, seen = held_out_storybooks()
    rivals = {arguments.model: arguments.model, "stories260k": str(DATA / "stories260k" / "hf")}
    rows = {name: bits(where, books) for name, where in rivals.items()}
    found = {
        "storybooks": len(books),
        "left_out_as_near_duplicates": seen,
        "bytes": int(sum(b for _, b in rows["stories260k"])),
        "bits_per_byte": {name: ratio(pairs) for name, pairs in rows.items()},
    }
    first, second = (np.array(rows[name]) for name in rivals)
    found["difference_interval"] = interval(first, second)
    print(json.dumps(found, indent=2))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def held_out_storybooks() -> tuple[list[Text], int]:
    """Held-out storybooks without near duplicates of training rows; how many were left out."""
    recipe = load_recipe(ROOT / "recipes" / "pretrain-nano.yaml")
    first = recipes.validate(recipes.stages(recipe)[0])
    objective = kinds.build("objectives", first.objective)
    train, held = read_parts(first.data, objective, first.training.seed, lambda _line: None)
    assert held is not None
    path = str(DATA / "corpus" / "stories.jsonl.xz")
    authored = {
        row.origin.line for source in read(path) for row in source.rows if row.fields.get("author")
    }
    known = {gram for record in train.records for gram in grams(text_of(record))}
    books = [
        r
        for r in held.records
        if isinstance(r, Text) and r.origin.source == path and r.origin.line in authored
    ]
    fresh = [book for book in books if overlap(book.text, known) < SHARED]
    return fresh, len(books) - len(fresh)


def text_of(record: Record) -> str:
    """The text of a raw-text record; conversations share nothing with storybooks."""
    return record.text if isinstance(record, Text) else ""


def grams(text: str, n: int = 8) -> Iterator[tuple[str, ...]]:
    """Word n-grams, lower case."""
    words = text.lower().split()
    return (tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def overlap(text: str, known: set[tuple[str, ...]]) -> float:
    """Share of a text's 8-grams that training rows hold as well."""
    own = list(grams(text))
    return sum(gram in known for gram in own) / len(own) if own else 0.0


def bits(model: str, books: list[Text]) -> list[tuple[float, float]]:
    """``(bits, bytes)`` of each book."""
    loaded = load(model)
    codec = TokenizerCodec(loaded.tokenizer, max_length=WINDOW)
    objective = kinds.build("objectives", kinds.config("objectives", "language_modeling"))
    found = []
    for number, book in enumerate(books):
        record = Text(Origin("book", number), book.text)
        windows, _ = fit(objective.encode(record, codec), WINDOW, "window")
        scored = score_losses(loaded.model, windows, codec)
        nats = math.fsum(float(s.losses.sum()) for s in scored if s.losses is not None)
        found.append((nats / math.log(2), float(len(book.text.encode()))))
    return found


def ratio(pairs: Any) -> float:
    """Bits per byte over all books."""
    total = np.array(pairs).sum(0)
    return round(float(total[0] / total[1]), 4)


def interval(first: Any, second: Any, resamples: int = 10_000) -> list[float]:
    """Paired bootstrap over books: 95 % interval of first minus second."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(first), (resamples, len(first)))
    a, b = first[picks].sum(1), second[picks].sum(1)
    low, high = np.percentile(a[:, 0] / a[:, 1] - b[:, 0] / b[:, 1], [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def section(found: dict[str, Any]) -> str:
    low, high = found["difference_interval"]
    rows = [f"| {name} | {value} |" for name, value in found["bits_per_byte"].items()]
    return "\n".join(
        [
            "## The bundled model: bits per byte on held-out storybooks",
            "",
            f"{found['storybooks']} storybooks, {found['bytes']:,} bytes "
            f"({found['left_out_as_near_duplicates']} more left out as near duplicates of training "
            f"rows); difference {low} to {high} (`benchmarks/storybooks.py`).",
            "",
            "| model | bits per byte |",
            "|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
