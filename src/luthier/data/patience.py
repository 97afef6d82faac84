"""Sources that give nothing: reading happens beside, so that one that stalls can be named."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from luthier.core.errors import DataError

T = TypeVar("T")

#: Seconds between two looks at a source.
_LOOK = 0.25


class GivenUpError(Exception):
    """Raised in a thread whose result nobody waits for, as after Ctrl-C."""


class Watch:
    """Since when a source has been asked for something without giving it.

    Only the asking counts: a slow file that gives a line an hour stalls, a large one whose lines
    take an hour to understand does not.

    Attributes:
        taken: bytes that files have given so far, packed as they are.
        over: whether nobody waits for the work any more.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self.taken = 0
        self.over = False

    @property
    def waited(self) -> float:
        """Seconds since the question that has no answer yet; 0 where there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def asked(self, question: Callable[[], T]) -> T:
        """The answer, its time taken."""
        if self.over:
            raise GivenUpError
        self._since = time.monotonic()
        try:
            return question()
        finally:
            self._since = None

    def open(self, path: Path) -> IO[bytes]:
        """A file to be read: opening it and every reading count, as either waits for a pipe."""
        raw = self.asked(lambda: path.open("rb", buffering=0))
        return cast(IO[bytes], io.BufferedReader(_Watched(raw, self), 1 << 20))

    def each(self, values: Iterable[T]) -> Iterator[T]:
        """The values, each one asked for under the clock."""
        done = object()
        iterator = self.asked(lambda: iter(values))
        while (value := self.asked(lambda: next(iterator, done))) is not done:
            yield cast(T, value)


class _Watched(io.RawIOBase):
    def __init__(self, raw: Any, watch: Watch) -> None:
        self._raw, self._watch = raw, watch

    def readinto(self, buffer: Any) -> int | None:
        count = cast("int | None", self._watch.asked(lambda: self._raw.readinto(buffer)))
        self._watch.taken += count or 0
        return count

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._raw.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())

    def close(self) -> None:
        self._raw.close()
        super().close()


def within(seconds: float, name: str, work: Callable[[Watch], T]) -> T:
    """What ``work`` returns or raises.

    Args:
        seconds: how long a source may keep it waiting.
        name: of the source.
        work: reads the source through the watch that it is given, in a thread of its own.

    Raises:
        DataError: the source gave nothing for so long.
    """
    watch, finished = Watch(), threading.Event()
    made: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(work(watch))
        except BaseException as error:
            failed.append(error)
        finally:
            finished.set()

    # A daemon: one that hangs in the system cannot be ended, and must not keep the process.
    threading.Thread(target=run, name=f"luthier-read {name}", daemon=True).start()
    try:
        while not finished.wait(min(_LOOK, seconds / 2)):
            if watch.waited > seconds:
                raise DataError(
                    f"gave nothing for {seconds:,.0f} seconds",
                    name,
                    "does anybody write to it, is its disk or its server there? data.timeout says "
                    "how long to wait",
                    code="stalled",
                )
    finally:
        watch.over = True
    if failed:
        raise failed[0]
    return made[0]
