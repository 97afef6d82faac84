"""One run folder, one process: a lock that the kernel lets go of when its holder dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from luthier.core.errors import RecipeError
from luthier.core.rundir import RunDir

#: What a file system says that knows no locks; nothing can be held there.
_WITHOUT = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def hold(run: RunDir) -> Iterator[None]:
    """Keeps other processes (and other calls of this one) from writing to a run.

    The lock is the kernel's (``flock``), so a killed process holds nothing; its file may stay
    behind and means nothing then.

    Raises:
        RecipeError: another one holds it; names its process.
    """
    handle = _take(run)
    try:
        yield
    finally:
        if handle is not None:
            run.lock.unlink(missing_ok=True)  # while it is held: nobody can hold an older file
            os.close(handle)


def refuse_held(run: RunDir) -> None:
    """Says whose a run is where it is held, and leaves no trace where it is not.

    Raises:
        RecipeError: somebody holds it.
    """
    if run.lock.is_file():
        with hold(run):
            pass


def _take(run: RunDir) -> int | None:
    try:
        import fcntl
    except ImportError:  # not POSIX: the user alone keeps two runs apart
        return None
    while True:
        handle = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode("ascii", "replace").strip()
            os.close(handle)
            raise _busy(run, holder) from None
        except OSError as error:
            os.close(handle)
            if error.errno in _WITHOUT:
                return None
            raise
        if _is_current(handle, run):
            break
        os.close(handle)  # its last holder took the file away in between
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def _is_current(handle: int, run: RunDir) -> bool:
    try:
        named = run.lock.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)


def _busy(run: RunDir, holder: str) -> RecipeError:
    who = f"process {holder}" if holder else "another process"
    return RecipeError(
        f"run '{run.path}' is being written by {who}",
        cure="wait for it, stop it, or choose another output: output=DIR",
        code="busy",
    )
