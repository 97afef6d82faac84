"""The user's cache: things that can be made again, by content hash, with a size bound.

It lies under ``LUTHIER_CACHE``, or the platform's cache folder. Nothing in it is ever needed:
deleting it costs time only. Only folders that carry the cache's own tag are ever emptied, whatever
else lies beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.core.errors import UserError
from luthier.core.words import parse_size

#: Bytes kept before the least recently used entries go; ``LUTHIER_CACHE_BYTES`` overrides.
DEFAULT_BOUND = 20 * 2**30
#: Marks a folder as a cache's (bford.info/cachedir), so that backups leave it out.
TAG = "CACHEDIR.TAG"
_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by Luthier; may be deleted.\n"
#: Hidden folders are entries being written; older than this, somebody was killed at it.
_STALE = 24 * 3600.0


@dataclass(frozen=True)
class Entry:
    """One thing in the cache.

    Attributes:
        kind: what sort of thing, the name of its folder.
        path: its own folder or file.
        size: bytes.
        used: when it was last asked for, seconds since the epoch.
    """

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


def bound() -> int:
    """Bytes that the cache may hold: ``LUTHIER_CACHE_BYTES`` (``5GB``), or the default.

    Raises:
        UserError: the variable is no size.
    """
    own = os.environ.get("LUTHIER_CACHE_BYTES")
    return parse_size(own) if own else DEFAULT_BOUND


def key(*parts: Any) -> str:
    """A hash of plain data, stable between processes."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def place(kind: str, name: str) -> Path:
    """Folder of an entry, which may not exist yet; an existing one counts as used now.

    Raises:
        UserError: the cache's folder cannot be made.
    """
    home = folder() / kind
    if not (home / TAG).is_file():
        try:
            home.mkdir(parents=True, exist_ok=True)
            (home / TAG).write_text(_SIGNATURE, encoding="ascii")
        except OSError as error:
            raise UserError(
                f"the cache '{home}' cannot be written: {error.strerror}",
                cure="name another folder: export LUTHIER_CACHE=DIR",
                code="cache",
            ) from None
    path = home / name
    with suppress(OSError):  # not there yet, or just deleted
        os.utime(path)
    return path


@contextmanager
def made(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes the entry once it is whole; a kill leaves no half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:  # another rank or run made the same one first
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Waits while another process makes the same entry: ranks of a run ask at the same moment.

    The lock is the kernel's (``flock``) on a hidden file, which a sweep takes away when it is old;
    where there is none, two may make the same thing.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        yield
        return
    with path.with_name(f".{path.name}.turn").open("wb") as handle:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def entries() -> list[Entry]:
    """Everything in the cache, least recently used first."""
    found = []
    for path in _paths():
        with suppress(FileNotFoundError):  # another process deletes as well
            if not path.name.startswith("."):
                found.append(Entry(path.parent.name, path, _size(path), path.stat().st_mtime))
    return sorted(found, key=lambda entry: entry.used)


def trim(limit: int | None = None) -> int:
    """Deletes the least recently used entries beyond a bound; returns the bytes freed."""
    freed = _sweep(_STALE)
    known = entries()
    excess = sum(entry.size for entry in known) - (bound() if limit is None else limit)
    for entry in known:
        if excess <= 0:
            break
        excess -= entry.size
        freed += _delete(entry.path, entry.size)
    return freed


def clear() -> int:
    """Deletes every entry; returns the bytes freed."""
    freed = _sweep(0.0)
    return freed + sum(_delete(entry.path, entry.size) for entry in entries())


def _paths() -> list[Path]:
    """What lies in the folders that carry the tag."""
    tags = sorted(folder().glob(f"*/{TAG}"))
    return [path for tag in tags for path in sorted(tag.parent.iterdir()) if path != tag]


def _sweep(age: float) -> int:
    """Deletes what was never finished; returns the bytes freed."""
    freed = 0
    for path in _paths():
        with suppress(FileNotFoundError):
            if path.name.startswith(".") and time.time() - path.stat().st_mtime >= age:
                freed += _delete(path, _size(path))
    return freed


def _delete(path: Path, size: int) -> int:
    """Deletes a folder or file; returns ``size``, or 0 where it could not be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    return 0 if path.exists() else size


def _size(path: Path) -> int:
    total = 0
    for inner in path.rglob("*") if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            total += 0 if inner.is_dir() else inner.stat().st_size
    return total


def _plain(value: Any) -> Any:
    """What JSON does not know: paths and numpy's numbers; anything else has no stable text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    assert hasattr(value, "item"), f"no stable key for a {type(value).__name__}"
    return value.item()
