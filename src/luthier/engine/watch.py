"""Watchers: values that are not finite, signals, and validation that rises."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from luthier.core.errors import TrainingError
from luthier.core.recipe_parts import EarlyStopping
from luthier.core.records import Origin
from luthier.engine.backend import Backend
from luthier.engine.checkpoint import State

#: Steps without a finite gradient after which a run stops.
LIMIT = 3


def check_finite(
    state: State,
    loss: float,
    norm: float,
    origins: Sequence[Origin],
    last_saved: Callable[[], Path | None],
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
    saved = last_saved()
    last = f"the last good checkpoint is {saved}" if saved else "no checkpoint was written"
    rows = ", ".join(str(origin) for origin in origins[:5])
    raise TrainingError(
        f"loss {loss} with gradient norm {norm} at step {state.step + 1}, {LIMIT} steps in a row; "
        f"rows {rows}{' …' if len(origins) > 5 else ''}; {last}",
        cure="lower training.learning_rate, set training.precision: float32, look at these rows",
        code="not-finite",
    )


def improved(state: State, rule: EarlyStopping | None, figure: float) -> bool:
    """Whether a validation's figure is the best so far; counts those that are not."""
    needed = rule.min_delta if rule else 0.0
    if math.isfinite(figure) and (state.best is None or figure < state.best[0] - needed):
        state.best, state.since_best = (figure, state.step), 0
        return True
    state.since_best += 1
    return False


def exhausted(state: State, rule: EarlyStopping | None) -> bool:
    """Whether early stopping ends the run."""
    return rule is not None and state.best is not None and state.since_best >= rule.patience


class StopNowError(BaseException):
    """A signal came while nothing had to be brought to an end first; no ``except`` may eat it."""


@dataclass
class Stop:
    """Whether somebody asked the run to stop.

    Attributes:
        signal: what came first.
        patient: whether the run looks for itself, between two steps; else the signal raises
            :class:`StopNowError` where it comes.
    """

    signal: int | None = None
    patient: bool = True

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    def together(self, backend: Backend) -> bool:
        """Whether a signal came to any rank; all of them know then."""
        if not backend.agree(self.asked):
            return False
        if self.signal is None:
            self.signal = signal.SIGTERM
        return True

    @contextmanager
    def patiently(self) -> Iterator[Stop]:
        """While this lasts a signal is only noted; whoever leaves it looks at :attr:`asked`."""
        before, self.patient = self.patient, True
        try:
            yield self
        finally:
            self.patient = before


#: The stop whose handlers are in place; an inner :func:`signals` shares it.
_current: list[Stop] = []


@contextmanager
def signals() -> Iterator[Stop]:
    """SIGTERM and the first Ctrl-C stop the run so that it can be continued.

    While training that is after the step under way; outside, wherever it is. Once one came,
    further SIGTERMs change nothing and a Ctrl-C ends the process at once.
    """
    if _current and threading.current_thread() is threading.main_thread():
        yield _current[-1]
        return
    stop = Stop(patient=False)

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        stop.signal = number
        if not stop.patient:
            raise StopNowError

    watched = (signal.SIGTERM, signal.SIGINT)
    try:
        old = {number: signal.signal(number, ask) for number in watched}
    except ValueError:  # not the main thread: signals are somebody else's business
        yield stop
        return
    _current.append(stop)
    try:
        yield stop
    finally:
        _current.remove(stop)
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
