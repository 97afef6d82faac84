"""A million invented rows through `luthier data check`: seconds, peak memory, duplicates found.

    python benchmarks/check_million.py [--rows 1000000] [--output check_million.json]

About 500 MB of prompt/response rows. One in a hundred is an earlier row word for word, one in a
hundred an earlier row with a few of its words changed; the true similarity of each of these is
computed here, one pair at a time, and the check's findings are compared with it. The check runs
in a process of its own, whose peak memory is what the system says of it: once in that process
alone, once sharing the rows out as the command does by itself; both must find the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
WORDS, SYLLABLES = 20_000, "ba be bi bo bu da de di do du ka ke ki ko ku ma me mi mo mu ra re ri ro"
#: Rows between a row and its copy, at most.
WINDOW = 5_000
BUCKETS = (0.8, 0.85, 0.9, 0.95, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", default="check_million.json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(checked(asked.child[0], int(asked.child[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        exact, near = write(path, asked.rows)
        alone, found = (run(path, count) for count in (1, os.cpu_count() or 1))
        size = path.stat().st_size
    same = [name for name in ("D050", "D051", "other") if alone[name] != found[name]]
    assert not same, f"several processes find something else: {same}"
    result = {
        "rows": asked.rows,
        "megabytes": round(size / 1e6, 1),
        "seconds": round(found["seconds"], 1),
        "rows_per_second": round(asked.rows / found["seconds"]),
        "peak_megabytes": round(found["peak"] / 1e6),
        "workers": found["workers"],
        "seconds_alone": round(alone["seconds"], 1),
        "peak_megabytes_alone": round(alone["peak"] / 1e6),
        "ratio": round(alone["seconds"] / found["seconds"], 2),
        "exact": score(exact, set(found["D050"])),
        "near": [bucket(near, set(found["D051"]), a, b) for a, b in pairs()],
        "near_false": len(set(found["D051"]) - set(near)),
        "other_findings": found["other"],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    place = RESULTS / asked.output
    place.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def pairs() -> Iterator[tuple[float, float]]:
    yield from itertools.pairwise(BUCKETS)


def score(planted: set[int], found: set[int]) -> dict[str, Any]:
    hit = len(planted & found)
    return {
        "planted": len(planted),
        "found": hit,
        "recall": round(hit / max(1, len(planted)), 4),
        "false": len(found - planted),
    }


def bucket(near: dict[int, float], found: set[int], low: float, high: float) -> dict[str, Any]:
    inside = {line for line, alike in near.items() if low <= alike < high}
    hit = len(inside & found)
    recall = round(hit / max(1, len(inside)), 4)
    return {"similarity": [low, high], "planted": len(inside), "found": hit, "recall": recall}


def run(path: Path, workers: int) -> dict[str, Any]:
    words = [sys.executable, __file__, "--child", str(path), str(workers)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def checked(path: str, workers: int) -> dict[str, Any]:
    """The check, with every finding kept so that lines can be compared."""
    from luthier.core import findings
    from luthier.data.check import Ask, check

    findings.SHOWN = 10**9
    report = check(Ask([("rows", path)], workers=workers))
    lines: dict[str, list[int]] = {"D050": [], "D051": []}
    for kept, _ in report.findings.groups():
        for one in kept:
            if one.code in lines:
                lines[one.code].append(int(one.place.rpartition(":")[2]))
    other = {c: n for c, n in report.findings.totals.items() if c not in lines}
    mine, theirs = (
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    peak = mine + workers * theirs if theirs else mine  # each of them at its largest
    return {
        "seconds": report.seconds,
        "peak": peak,
        "workers": workers,
        "other": other,
        **lines,
    }


def write(path: Path, rows: int) -> tuple[set[int], dict[int, float]]:
    """The file; lines of exact copies, and of near ones with their true similarity."""
    rng = random.Random(0)
    parts = SYLLABLES.split()
    words = list({"".join(rng.choices(parts, k=rng.randint(1, 5))) for _ in range(2 * WORDS)})
    words = sorted(words)[:WORDS]
    recent: list[list[str]] = []
    exact: set[int] = set()
    near: dict[int, float] = {}
    with path.open("w", encoding="utf-8") as stream:
        for line in range(1, rows + 1):
            drawn = rng.random()
            if drawn < 0.02 and len(recent) == WINDOW:
                before = rng.choice(recent)
                text = list(before)
                if drawn < 0.01:
                    exact.add(line)
                else:
                    for _ in range(rng.randint(1, 3)):
                        text[rng.randrange(len(text))] = rng.choice(words)
                    alike = similarity(before, text)
                    if alike < 1:
                        near[line] = alike
            else:
                text = rng.choices(words, k=rng.randint(50, 80))
                if len(recent) < WINDOW:
                    recent.append(text)
                elif rng.random() < 0.1:
                    recent[rng.randrange(WINDOW)] = text
            stream.write(f'{{"prompt": "{" ".join(text[:12])}?", "response": "')
            stream.write(f'{" ".join(text[12:])}."}}\n')
    return exact, near


def similarity(one: list[str], other: list[str]) -> float:
    """Jaccard similarity of three-word shingles, the plain way."""
    a, b = (
        {tuple(t[i : i + 3]) for i in range(len(t) - 2)}
        for t in (re.findall(r"\w+", " ".join(each)) for each in (one, other))
    )
    return len(a & b) / len(a | b)


if __name__ == "__main__":
    main()
