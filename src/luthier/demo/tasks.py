"""Tasks whose answers a rule can check: small sums and short lists to sort, made by a seed.

``python -m luthier.demo.tasks FOLDER`` writes ``arithmetic-train.jsonl`` and the like, rows of
``prompt`` and ``answer``: to be learned as they are (``format: prompt_response``), or to be found
out by trying (``format: checkable``). No test prompt is a training prompt.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from random import Random

Row = dict[str, str]

#: Largest number in a sum; digits of a list to sort.
LARGEST, LENGTH = 20, 4
#: Share of the tasks of each kind that are for testing.
TEST = 0.15


def arithmetic(largest: int = LARGEST) -> Iterator[Row]:
    """Every sum and every difference of two numbers up to ``largest``; none is negative.

    >>> next(arithmetic(1))
    {'prompt': '0 + 0 =', 'answer': '0'}
    """
    for a in range(largest + 1):
        for b in range(largest + 1):
            yield {"prompt": f"{a} + {b} =", "answer": str(a + b)}
            if a >= b:
                yield {"prompt": f"{a} - {b} =", "answer": str(a - b)}


def sorting(length: int = LENGTH) -> Iterator[Row]:
    """Every order of so many different digits, to be put in the right one.

    >>> next(sorting(2))
    {'prompt': 'Sort 0 1', 'answer': '0 1'}
    """
    for digits in permutations(range(10), length):
        said = " ".join(map(str, digits))
        yield {"prompt": f"Sort {said}", "answer": " ".join(map(str, sorted(digits)))}


#: Name of a file -> its tasks.
TASKS = {"arithmetic": arithmetic, "sorting": sorting}


def split(name: str, seed: int = 0) -> tuple[list[Row], list[Row]]:
    """The training and the test tasks of a kind, shuffled by a seed."""
    rows = list(TASKS[name]())
    Random(f"{name}-{seed}").shuffle(rows)
    held = round(TEST * len(rows))
    return rows[held:], rows[:held]


def write(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Writes every kind's two files; ``arithmetic-train`` and the like -> its path."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name in TASKS:
        for part, rows in zip(("train", "test"), split(name, seed), strict=True):
            path = folder / f"{name}-{part}.jsonl"
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            path.write_text(lines, encoding="utf-8", newline="\n")
            files[f"{name}-{part}"] = path
    return files


if __name__ == "__main__":
    for made in write(Path(sys.argv[1] if len(sys.argv) > 1 else ".")).values():
        print(made)
