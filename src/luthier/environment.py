"""What a run ran on: versions, device, threads, git commit, data fingerprints, choices."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import luthier
from luthier.core.recipe import TrainingSpec
from luthier.core.rundir import RunDir, write_json
from luthier.engine.probe import prepare_host

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors")


def prepare(spec: TrainingSpec) -> dict[str, Any]:
    """Threads and allocator of this process, before any model is loaded."""
    return {"threads": prepare_host(spec.threads)}


def first_rank() -> bool:
    """Whether this process is the one that writes, as launchers of several ranks tell it."""
    return int(os.environ.get("RANK", "0")) == 0


def describe() -> dict[str, Any]:
    """Versions and machine."""
    found: dict[str, Any] = {
        "luthier": luthier.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    for name in LIBRARIES:
        found[name] = version(name)
    found["git"] = git_commit()
    return found


def version(name: str) -> str | None:
    """A library's version, ``None`` where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the folder that the run was started in, ``-dirty`` with changes."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def write(folder: RunDir, more: dict[str, Any]) -> None:
    """Writes ``environment.json``."""
    write_json(folder.environment, {**describe(), **more})


def write_stages_note(folder: RunDir) -> None:
    """``environment.json`` of a staged run, whose stages have their own."""
    write(folder, {"stages": True})
