"""Where figures go: events.jsonl always, the terminal, TensorBoard, W&B, MLflow.

A tracker is given values; none of them ever reaches back into the loop.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from luthier.core.errors import RecipeError
from luthier.core.rundir import RunDir, write_lines

Event = Mapping[str, Any]


class Tracker(Protocol):
    """Receives events: dicts with a ``kind`` (``step``, ``validation``, ``warning``) and a step."""

    def log(self, event: Event) -> None:
        """Takes one event."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class EventFile:
    """``events.jsonl``: one JSON object a line, flushed at once.

    Args:
        run: the run folder.
        after: a resumed run drops the lines of steps that it will do again.
    """

    def __init__(self, run: RunDir, after: int = 0) -> None:
        if run.events.exists():
            write_lines(run.events, _before(run, after))
        self._stream = run.events.open("a", encoding="utf-8")

    def log(self, event: Event) -> None:
        """Appends a line."""
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


class Bar:
    """A live bar with loss, tokens/s, memory and time left, for a terminal."""

    def __init__(self, total: int, done: int = 0) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("[bold]training"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
        )
        self._progress.start()
        self._task = self._progress.add_task("", total=total, completed=done, figures="")

    def log(self, event: Event) -> None:
        """Moves the bar; prints what is worth keeping above it."""
        if event["kind"] == "step":
            rollout = event.get("rollout")
            earned = "" if rollout is None else f"reward {rollout['reward']:.3f}  "
            figures = (
                f"{earned}loss {event['loss']:.3f}  {event['tokens_per_second']:,.0f} tok/s  "
                f"{event['memory'] / 2**30:.1f} GB"
            )
            self._progress.update(self._task, completed=event["step"], figures=figures)
        else:
            self._progress.console.print(say(event), highlight=False, markup=False)

    def close(self) -> None:
        """Leaves the finished bar on the screen."""
        self._progress.stop()


class Lines:
    """Plain lines, where the output is no terminal."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._start, self._first = time.monotonic(), -1

    def log(self, event: Event) -> None:
        """Prints a line."""
        line = say(event)
        if event["kind"] == "step":
            if self._first < 0:
                self._first, self._start = event["step"], time.monotonic()
            elif event["step"] < self._total:
                pace = (time.monotonic() - self._start) / (event["step"] - self._first)
                line += f"  {_clock(pace * (self._total - event['step']))} left"
        print(line, flush=True)

    def close(self) -> None:
        """Nothing to close."""


class TensorBoard:
    """Scalars for TensorBoard."""

    def __init__(self, run: RunDir) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.tensorboard))

    def log(self, event: Event) -> None:
        """Writes every number of the event."""
        for name, value in _scalars(event).items():
            self._writer.add_scalar(name, value, event["step"])

    def close(self) -> None:
        """Flushes the event file."""
        self._writer.close()


class WandB:
    """Scalars for Weights & Biases."""

    def __init__(self, run: RunDir) -> None:
        import wandb

        self._run = wandb.init(name=run.path.name, dir=str(run.path))

    def log(self, event: Event) -> None:
        """Sends every number of the event."""
        if scalars := _scalars(event):
            self._run.log(scalars, step=event["step"])

    def close(self) -> None:
        """Ends the remote run."""
        self._run.finish()


class MLflow:
    """Scalars for MLflow."""

    def __init__(self, run: RunDir) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.start_run(run_name=run.path.name)

    def log(self, event: Event) -> None:
        """Sends every number of the event."""
        if scalars := _scalars(event):
            self._mlflow.log_metrics(scalars, step=event["step"])

    def close(self) -> None:
        """Ends the remote run."""
        self._mlflow.end_run()


_BY_NAME: dict[str, Callable[[RunDir], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def open_trackers(
    run: RunDir, names: Sequence[str] | str, total: int, done: int, quiet: bool
) -> list[Tracker]:
    """The trackers of a run; ``auto`` is TensorBoard where it is installed.

    Raises:
        RecipeError: a tracker that is named but not installed.
    """
    if names == "auto":
        names = ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f"training.trackers: {name} is not installed", cure=f"pip install {name}"
            )
    trackers: list[Tracker] = [EventFile(run, done)]
    if not quiet:
        trackers.append(Bar(total, done) if sys.stdout.isatty() else Lines(total))
    return trackers + [_BY_NAME[name](run) for name in names]


def _before(run: RunDir, after: int) -> list[dict[str, Any]]:
    """The events up to a step; a killed run may have left half a line behind the last one."""
    kept = []
    for line in run.events.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("step", 0) <= after:
            kept.append(event)
    return kept


def say(event: Event) -> str:
    """An event as a line for people."""
    if event["kind"] == "step":
        rollout = event.get("rollout")
        earned = "" if rollout is None else f"reward {rollout['reward']:.4f}  "
        return (
            f"step {event['step']:>6}  {earned}loss {event['loss']:.4f}  "
            f"lr {event['learning_rate']:.2e}  {event['tokens_per_second']:,.0f} tok/s  "
            f"{event['memory'] / 2**30:.1f} GB"
        )
    if event["kind"] == "validation" and "reward" in event["terms"]:
        return f"step {event['step']:>6}  validation reward {event['terms']['reward']:.4f}"
    if event["kind"] == "validation":
        return f"step {event['step']:>6}  validation loss {event['loss']:.4f}"
    return f"{event['kind']}: {event['message']}"


def _scalars(event: Event) -> dict[str, float]:
    """The numbers of an event under names such as ``step/loss`` and ``validation/nll``."""
    flat: dict[str, float] = {}
    for name, value in event.items():
        if name in ("kind", "step"):
            continue
        if isinstance(value, Mapping):
            flat.update({f"{event['kind']}/{k}": float(v) for k, v in value.items()})
        elif isinstance(value, int | float):
            flat[f"{event['kind']}/{name}"] = float(value)
    return flat


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
