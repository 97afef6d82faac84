"""Watchers: values that are not finite, signals, and validation that rises."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from luthier.core.errors import TrainingError
from luthier.core.records import Origin
from luthier.core.rundir import RunDir
from luthier.engine.checkpoint import State

#: Steps without a finite gradient after which a run stops.
LIMIT = 3


def check_finite(
    state: State, loss: float, norm: float, origins: Sequence[Origin], run: RunDir
) -> bool:
    """Whether this step may update the weights; counts those that may not.

    Raises:
        TrainingError: the third in a row; names the step, rows and last good checkpoint.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        state.bad_in_a_row = 0
        return True
    state.skipped += 1
    state.bad_in_a_row += 1
    if state.bad_in_a_row < LIMIT:
        return False
    saved = run.saved()
    last = f"the last good checkpoint is {saved[-1][1]}" if saved else "no checkpoint was written"
    rows = ", ".join(str(origin) for origin in origins[:5])
    raise TrainingError(
        f"loss {loss} with gradient norm {norm} at step {state.step + 1}, {LIMIT} steps in a row; "
        f"rows {rows}{' …' if len(origins) > 5 else ''}; {last}",
        cure="lower training.learning_rate, set training.precision: float32, look at these rows",
        code="not-finite",
    )


@dataclass
class Stop:
    """Whether somebody asked the run to stop at the next step."""

    signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None


@contextmanager
def signals() -> Iterator[Stop]:
    """SIGTERM and the first Ctrl-C stop the run between two steps; a second Ctrl-C at once."""
    stop = Stop()

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and stop.asked:
            raise KeyboardInterrupt
        stop.signal = number

    watched = (signal.SIGTERM, signal.SIGINT)
    try:
        old = {number: signal.signal(number, ask) for number in watched}
    except ValueError:  # not the main thread: signals are somebody else's business
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Trend:
    """Says once when validation rises while training falls: the model begins to memorise."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []
        self._said = False

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of this object."""
        return {"seen": [list(pair) for pair in self._seen[-2:]], "said": self._said}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self._seen = [(a, b) for a, b in state.get("seen", ())]
        self._said = state.get("said", False)

    def add(self, training: float, validation: float) -> str | None:
        """A warning in plain words after two rises in a row, else ``None``."""
        self._seen.append((training, validation))
        if self._said or len(self._seen) < 3:
            return None
        a, b, c = self._seen[-3:]
        if a[1] < b[1] < c[1] and c[0] < a[0]:
            self._said = True
            return (
                f"validation loss rises ({a[1]:.4f} to {c[1]:.4f}) while training loss falls: the "
                "model begins to memorise; fewer epochs or training.early_stopping would help"
            )
        return None
