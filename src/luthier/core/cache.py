"""The user's cache: things that can be made again, by content hash, with a size bound.

It lies under ``LUTHIER_CACHE``, or the platform's cache folder. Nothing in it is ever needed:
deleting it costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Bytes kept before the least recently used entries go; ``LUTHIER_CACHE_BYTES`` overrides.
DEFAULT_BOUND = 20 * 2**30


@dataclass(frozen=True)
class Entry:
    """One thing in the cache."""

    kind: str
    path: Path
    size: int
    used: float


def folder() -> Path:
    """Where the cache lies."""
    if own := os.environ.get("LUTHIER_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "luthier"


def key(*parts: Any) -> str:
    """A hash of plain data, stable between processes."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def place(kind: str, name: str) -> Path:
    """Folder of an entry, which may not exist yet; an existing one counts as used now."""
    path = folder() / kind / name
    if path.exists():
        os.utime(path, (time.time(), path.stat().st_mtime))
    return path


def entries() -> list[Entry]:
    """Everything in the cache, least recently used first."""
    found = []
    for kind in sorted(p for p in folder().glob("*") if p.is_dir()):
        for path in kind.iterdir():
            if not path.name.startswith("."):
                found.append(Entry(kind.name, path, _size(path), path.stat().st_atime))
    return sorted(found, key=lambda entry: entry.used)


def trim(bound: int | None = None) -> int:
    """Deletes the least recently used entries beyond the bound; returns the bytes freed."""
    if bound is None:
        bound = int(os.environ.get("LUTHIER_CACHE_BYTES", DEFAULT_BOUND))
    known = entries()
    excess = sum(entry.size for entry in known) - bound
    freed = 0
    for entry in known:
        if freed >= excess:
            break
        shutil.rmtree(entry.path, ignore_errors=True)
        freed += entry.size
    return freed


def clear() -> int:
    """Deletes every entry; returns the bytes freed."""
    return trim(-1)


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
