"""Work shared out among processes, its results in order, as if one had done it all.

Python runs on one core of a process, so what is long and mostly Python goes to processes of our
own. They are started once the work has taken a while: short work is done before they would be
ready. Each is asked for one piece of work at a time and answers it; the pieces depend on nothing
but what all were told at the start, so that results are the same however many there are.

They are plain subprocesses, no forks (threads of libraries would be cut off in the middle) and
none of ``multiprocessing`` (which runs a user's script again in each of them). What goes through
their pipes is pickled by one process of ours for another and never lies on a disk.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import IO, Any, Literal

from luthier.core.errors import UserError

#: Makes of what all were told what does one piece of work.
Maker = Callable[[Any], Callable[[Any], Any]]

#: Seconds of work before processes are started for the rest.
AFTER = 15.0
#: More of them wait for the process that hands out the work.
_MOST = 8
#: Pieces that are under way at once for each.
_AHEAD = 2
_SIZE = struct.Struct("<Q")
_SERVE = "from luthier.core.workers import serve; serve()"


def processes(asked: int | Literal["auto"]) -> int:
    """How many are asked for; ``auto``: the cores that this one may use, shared with its ranks."""
    if asked != "auto":
        return asked
    known = getattr(os, "sched_getaffinity", None)
    count = len(known(0)) if known else os.cpu_count() or 1
    return max(1, min(_MOST, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class DiedError(UserError):
    """A process that shared the work ended before it answered."""


class Crew:
    """Does pieces of work in the order in which they are given.

    Args:
        task: ``module:function`` of a :data:`Maker`.
        told: what the maker is given, in every process. Where it cannot be sent to another one,
            everything is done in this one.
        count: processes; with one, everything is done in this one.
    """

    def __init__(self, task: str, told: Any, count: int) -> None:
        self._task, self._told, self._count = task, told, count
        self._work = _made(task)(told)
        self._began = time.monotonic()
        self._pool = ThreadPoolExecutor(count, "luthier-crew")  # one waits for each process
        self._waiting: deque[Future[Any]] = deque()
        self._workers: list[_Worker] = []
        self._free: SimpleQueue[_Worker] = SimpleQueue()

    def put(self, piece: Any) -> Iterator[Any]:
        """Takes a piece, and gives the results that are there, in order.

        Raises:
            DiedError: a process ended.
        """
        if not self._workers and self._count > 1 and time.monotonic() - self._began > AFTER:
            self._start()
        if not self._workers:
            yield self._work(piece)
            return
        self._waiting.append(self._pool.submit(self._one, piece))
        while len(self._waiting) > _AHEAD * self._count:
            yield self._waiting.popleft().result()

    def rest(self) -> Iterator[Any]:
        """The results that are still to come.

        Raises:
            DiedError: a process ended.
        """
        while self._waiting:
            yield self._waiting.popleft().result()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_error: object) -> None:
        """Ends the processes, whatever they are at."""
        for future in self._waiting:
            future.cancel()
        for worker in self._workers:
            worker.end()
        self._pool.shutdown(cancel_futures=True)

    def _start(self) -> None:
        try:
            first = ForkingPickler.dumps((self._task, self._told), protocol=5)
        except Exception:  # each library has its own for what it cannot pack
            self._count = 1  # a tokenizer with parts in Python, an objective made at a prompt
            return
        for _ in range(self._count):
            self._workers.append(_Worker(first))
            self._free.put(self._workers[-1])

    def _one(self, piece: Any) -> Any:
        worker = self._free.get()
        try:
            return worker.ask(piece)
        finally:
            self._free.put(worker)


def shared(task: str, told: Any, pieces: Iterable[Any], count: int) -> Iterator[Any]:
    """Each piece's result, in order; see :class:`Crew`.

    Raises:
        DiedError: a process ended.
    """
    with Crew(task, told, count) as crew:
        for piece in pieces:
            yield from crew.put(piece)
        yield from crew.rest()


class _Worker:
    """A process of ours, asked for one thing at a time."""

    def __init__(self, first: Any) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",  # they share the cores already
        }
        self._process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-P", "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._first = first

    def ask(self, piece: Any) -> Any:
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None
        try:
            if self._first is not None:
                _send(into, self._first)
                self._first = None
            _send(into, ForkingPickler.dumps(piece, protocol=5))
            done, answer = _receive(out)
        except (EOFError, OSError):
            raise self._died() from None
        if not done:
            raise RuntimeError(f"in a process that shares the work:\n{answer}")
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was not flushed has nobody to read it
                if pipe is not None:
                    pipe.close()

    def _died(self) -> DiedError:
        status = self._process.wait()
        how = f"with status {status}"
        if status < 0:
            with suppress(ValueError):
                how = f"by {signal.Signals(-status).name}"
        likely = ", as the system does where memory runs out" if status == -signal.SIGKILL else ""
        return DiedError(
            f"a process that shared the work was ended {how}{likely}",
            cure="try again with one process: --workers 1, or data.workers=1 in a recipe",
            code="worker",
        )


def serve() -> None:
    """What such a process does: answers until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all of them
    source, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with suppress(EOFError, OSError):  # nobody asks any more
        task, told = _receive(source)
        work = _made(task)(told)
        while True:
            piece = _receive(source)
            try:
                answer = (True, work(piece))
            except Exception:
                answer = (False, traceback.format_exc())
            _send(out, ForkingPickler.dumps(answer, protocol=5))


def _made(task: str) -> Maker:
    module, _, name = task.partition(":")
    maker: Maker = getattr(import_module(module), name)
    return maker


def _send(pipe: IO[bytes], packed: Any) -> None:
    pipe.write(_SIZE.pack(len(packed)))
    pipe.write(packed)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError
    (size,) = _SIZE.unpack(head)
    packed = pipe.read(size)
    if len(packed) < size:
        raise EOFError
    return ForkingPickler.loads(packed)
