"""A full disk, however the library that met it says so, as one error with the figures."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from luthier.core.errors import DiskFullError

#: No room, no quota, a file larger than the process may write.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: The same where a library keeps the words alone: torch raises RuntimeError, safetensors its own.
_SAID = ("no space left", "file too large", "quota exceeded", *(f"os error {n})" for n in FULL))


def is_full(error: BaseException) -> bool:
    """Whether an error says that there is no room."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(words in str(error).lower() for words in _SAID)


def full(what: str, folder: Path, needed: int | None, cure: str) -> DiskFullError:
    """The error of a full disk, with the bytes needed and free."""
    figures = [] if needed is None else [f"it needs {needed:,} bytes"]
    with suppress(OSError):
        figures.append(f"{shutil.disk_usage(folder).free:,} bytes are free")
    return DiskFullError(
        f"{what} cannot be written, there is no room: {', '.join(figures)}",
        cure=cure,
        code="disk-full",
    )


@contextmanager
def room_for(what: str, folder: Path, cure: str) -> Iterator[None]:
    """Around writing: a full disk becomes a :class:`DiskFullError`, all else stays as it is.

    Raises:
        DiskFullError: there was no room.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:  # three libraries, three kinds of error for one thing
        if not is_full(error):
            raise
        raise full(what, folder, None, cure) from error
