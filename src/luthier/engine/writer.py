"""Checkpoints beside training: copied between two steps, written by a thread while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from luthier.core.rundir import RunDir
from luthier.engine import checkpoint
from luthier.engine.checkpoint import Snapshot, State
from luthier.engine.memory import is_out_of_memory


class Writer:
    """Writes one checkpoint at a time; used as a context, it is not left before that is done.

    Args:
        run: the run folder.
        keep: checkpoints to retain, the best beside them.
    """

    def __init__(self, run: RunDir, keep: int) -> None:
        self._run, self._keep = run, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        state: State,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scaler: Mapping[str, Any],
        average: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Copies the run as it stands and begins to write it, once the one before is written.

        Where memory does not hold a second copy, or no thread can be had, training waits instead.

        Raises:
            TrainingError: the checkpoint before could not be written.
        """
        self.wait()
        best = state.best[1] if state.best else None
        try:
            snapshot = checkpoint.capture(state, parameters, optimizer, scaler, average)
            copied = True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            copied = False
        if not copied:  # outside the handler, whose traceback keeps half a copy alive
            snapshot = checkpoint.capture(state, parameters, optimizer, scaler, average, copy=False)
        if not (copied and self._beside(snapshot, best)):
            self._write(snapshot, best)
            self.wait()

    def check(self) -> None:
        """Raises what went wrong in the background, without waiting."""
        if self._error is not None:
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written any more.

        Raises:
            TrainingError: it could not be written.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            error.add_note(f"and while that was under way: {failed}")

    def _beside(self, snapshot: Snapshot, best: int | None) -> bool:
        """Whether a thread could be had for it; one wants memory as well."""
        # No daemon: an interpreter that ends waits for it too.
        thread = threading.Thread(
            target=self._write, args=(snapshot, best), name="luthier-checkpoint"
        )
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _write(self, snapshot: Snapshot, best: int | None) -> None:
        try:
            checkpoint.write(self._run, snapshot)
            checkpoint.retain(self._run, self._keep, best)
        except BaseException as error:  # raised in the loop, at its next chance
            self._error = error
