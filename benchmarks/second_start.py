"""A second start of one recipe on a million rows: seconds from imports to the first step.

    python benchmarks/second_start.py [--rows 1000000] [--repeats 3] [--output second_start.json]

Invented rows in the shape of Dolly's (prompt and response, about 420 bytes) are written to one
file. `luthier train` is started on it in a process of its own, as a user would, up to the first
step of the loop, whose examples are fetched and collated; there it ends. The first start reads,
splits, encodes and keeps; later ones find what it kept. Times count from the end of the imports;
loading the model is listed and taken off. `verify` is the same with `--verify`, which reads and
hashes every row again. All starts must be about to learn from the same rows: a checksum of the
first batch is compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
SYLLABLES = [c + v for c in "bdkmr" for v in "aeiou"]
#: Words of a response, drawn between them.
WORDS = (20, 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", help="folder for rows and cache; a temporary one if unset")
    parser.add_argument("--output", default="second_start.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--verify", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        start(asked.child, asked.verify)
        return
    with tempfile.TemporaryDirectory(dir=asked.scratch) as folder:
        path = Path(folder, "rows.jsonl")
        write(path, asked.rows)
        megabytes = round(path.stat().st_size / 1e6, 1)
        time.sleep(2.5)  # a file that was written just now is not taken for known
        first = run(path)
        later = [run(path) for _ in range(asked.repeats)]
        verified = run(path, "--verify")
    assert len({each["batch"] for each in (first, *later, verified)}) == 1, "not the same rows"
    result = {
        "rows": asked.rows,
        "megabytes": megabytes,
        "first": figures([first]),
        "second": figures(later),
        "verify": figures([verified]),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    place = RESULTS / asked.output
    place.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the seconds of each part, and the spread of the whole."""
    totals = [each["total"] for each in runs]
    parts = {
        name: round(statistics.median(each["parts"][name] for each in runs), 3)
        for name in runs[0]["parts"]
    }
    return {
        "runs": len(runs),
        "seconds": round(statistics.median(totals), 3),
        "least": round(min(totals), 3),
        "most": round(max(totals), 3),
        "parts": parts,
        "imports": round(statistics.median(each["imports"] for each in runs), 3),
        "model": round(statistics.median(each["model"] for each in runs), 3),
        "peak_megabytes": round(max(each["peak"] for each in runs) / 1e6),
    }


def run(path: Path, *words: str) -> dict[str, Any]:
    """One start in a process of its own."""
    environment = {**os.environ, "LUTHIER_CACHE": str(path.parent / "cache")}
    command = [sys.executable, __file__, "--child", str(path), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def start(path: str, verify: bool) -> None:
    """Up to the loop's first step, every part on the clock."""
    begun = time.perf_counter()
    import peft  # noqa: F401 - imported by the methods at work otherwise

    import luthier
    from luthier import assemble, fit
    from luthier import run as runs
    from luthier.engine import loop

    imported = time.perf_counter()
    spent: dict[str, float] = {}

    def timed(module: Any, name: str) -> None:
        plain = getattr(module, name)

        def clocked(*given: Any, **named: Any) -> Any:
            before = time.perf_counter()
            try:
                return plain(*given, **named)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - before

        setattr(module, name, clocked)

    for module, name in [
        (assemble, "known_parts"),
        (assemble, "load_model"),
        (assemble, "make_codec"),
        (assemble, "encode"),
        (fit, "fingerprints"),
        (fit, "_probe"),
        (fit, "feed"),
        (fit, "open_trackers"),
        (runs, "assemble"),
    ]:
        timed(module, name)

    def train(self: Any) -> Any:
        before = time.perf_counter()
        examples, _ = self.data.step(0)
        batch = self.data.collate(examples)
        now = time.perf_counter()
        spent["first_batch"] = now - before
        whole = spent.pop("assemble")
        model = spent.pop("load_model")
        inner = sum(spent[name] for name in ("known_parts", "make_codec", "encode"))
        spent["assemble, the rest"] = whole - model - inner
        total = now - imported - model
        spent["the rest"] = total - sum(spent.values())
        tokens = hashlib.sha256(batch.tokens.numpy().tobytes()).hexdigest()
        said = {
            "total": total,
            "parts": spent,
            "imports": imported - begun,
            "model": model,
            "batch": tokens,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print("\n" + json.dumps(said), flush=True)
        os._exit(0)

    loop.Loop.train = train  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        recipe = {
            "model": "builtin:nano",
            "data": {"train": path, "validation": 0.05},
            "training": {"max_steps": 10, "trackers": []},
            "output": str(Path(folder, "run")),
        }
        luthier.train(recipe, verify=verify, quiet=True)


def write(path: Path, rows: int) -> None:
    """Prompts and responses of invented words, none twice."""
    rng = random.Random(0)
    words = sorted({"".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(30_000)})
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            text = rng.choices(words, k=rng.randint(*WORDS))
            asked = " ".join(text[: len(text) // 4])
            said = " ".join(text[len(text) // 4 :])
            row = {"prompt": f"{asked} {number}?", "response": f"{said}."}
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
