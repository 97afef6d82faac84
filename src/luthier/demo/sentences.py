"""Sentences that are pleased or displeased, each labelled: what a judge of tone learns from.

``python -m luthier.demo.sentences FOLDER`` writes ``sentences-train.jsonl`` and its test rows
(``text`` and ``label``), and ``beginnings.jsonl`` (``prompt``): how sentences begin, before
anything is said of what they speak of. Every sentence is made once; the seed draws which.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random

Row = dict[str, str]

LABELS = ("negative", "positive")
#: Sentences of each label for training and for testing.
COUNTS = {"train": 2500, "test": 500}

_THINGS = (
    "The food", "The soup", "The coffee", "The bread", "The room", "The bed", "The view",
    "The garden", "The staff", "The waiter", "The driver", "The guide", "The music", "The film",
    "The story", "The ending", "The book", "The game", "The phone", "The battery", "The screen",
    "The delivery", "The box", "The price", "The service", "The lamp", "The chair", "The jacket",
    "The shop", "The train",
)  # fmt: skip
_PLACES = (
    "", " at the station", " by the river", " in the old town", " near the harbour",
    " on the second day", " from the new shop", " we had last night", " they sent me",
    " my sister chose",
)  # fmt: skip
_SAID = {
    "positive": (
        "was wonderful", "was a real joy", "was better than I had hoped", "made me smile",
        "was excellent", "was perfect in every way", "is the best I know", "was lovely and warm",
        "was great from start to end", "was worth every penny", "is a pleasure each time",
        "was charming", "could not have been nicer", "was superb", "left us all happy",
        "was bright, clean and friendly",
    ),
    "negative": (
        "was terrible", "was a real waste", "was worse than I had feared", "made me angry",
        "was awful", "was broken in every way", "is the worst I know", "was dull and cold",
        "was bad from start to end", "was not worth a penny", "is a disappointment each time",
        "was horrible", "could not have been ruder", "was dreadful", "left us all upset",
        "was dark, dirty and unfriendly",
    ),
}  # fmt: skip
_ENDS = {
    "positive": ("", " I will come again.", " Thank you!", " I am so glad.", " Five stars."),
    "negative": ("", " I will never come again.", " No thanks.", " I am so cross.", " One star."),
}


def sentences(label: str) -> Iterator[str]:
    """Every sentence of a label."""
    for thing, place, said, end in product(_THINGS, _PLACES, _SAID[label], _ENDS[label]):
        yield f"{thing}{place} {said}.{end}"


def split(seed: int = 0) -> dict[str, list[Row]]:
    """Labelled rows for training and for testing, both labels equally often."""
    made: dict[str, list[Row]] = {part: [] for part in COUNTS}
    for label in LABELS:
        known = list(sentences(label))
        drawn = iter(Random(f"{label}-{seed}").sample(known, sum(COUNTS.values())))
        for part, count in COUNTS.items():
            made[part] += [{"text": next(drawn), "label": label} for _ in range(count)]
    for part, rows in made.items():
        Random(f"{part}-{seed}").shuffle(rows)
    return made


def beginnings(seed: int = 0) -> list[Row]:
    """How sentences begin, each once."""
    made = [{"prompt": f"{thing}{place}"} for thing, place in product(_THINGS, _PLACES)]
    Random(f"beginnings-{seed}").shuffle(made)
    return made


def write(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Writes the three files; ``train``, ``test`` and ``beginnings`` -> its path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {f"sentences-{part}": each for part, each in split(seed).items()}
    files = {}
    for name, each in {**rows, "beginnings": beginnings(seed)}.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in each), encoding="utf-8")
        files[name.removeprefix("sentences-")] = path
    return files


if __name__ == "__main__":
    for made in write(Path(sys.argv[1] if len(sys.argv) > 1 else ".")).values():
        print(made)
