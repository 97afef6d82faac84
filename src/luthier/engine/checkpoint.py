"""Checkpoints: everything that makes a resumed run equal one that was never stopped.

A checkpoint is a folder of safetensors and JSON with a manifest of sha256 sums, written beside
its final name and renamed once it is whole and on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from luthier.core import disk
from luthier.core.errors import TrainingError
from luthier.core.rundir import RunDir

MANIFEST = "manifest.json"
#: Ends of hidden names: what a save replaces until it is done, what retention deletes.
OLD, GONE = ".old", ".gone"
_FILES = {"weights.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"}


@dataclass
class State:
    """Where a run stands between two steps.

    Attributes:
        step: steps done: optimizer updates, or rollouts with all of their updates.
        updates: optimizer updates done.
        tokens: real tokens seen.
        seconds: of training so far.
        skipped: steps without an update because something was not finite.
        bad_in_a_row: how many of them were the latest.
        best: lowest validation figure so far, and the step it belongs to.
        since_best: validations without an improvement.
        choices: the probe's choices and the token budget, which a resumed run keeps.
        fingerprint: of the recipe and the data.
        recent: figures since the last log line.
        trend: the latest validations, for the warning that they rise.
        memory: what an online objective keeps from one rollout to the next.
    """

    step: int = 0
    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    bad_in_a_row: int = 0
    best: tuple[float, int] | None = None
    since_best: int = 0
    choices: dict[str, Any] = field(default_factory=dict)
    fingerprint: dict[str, str] = field(default_factory=dict)
    recent: dict[str, Any] = field(default_factory=dict)
    trend: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A run between two steps, held in memory until it is written.

    Attributes:
        step: its number.
        files: name of each file of tensors -> its tensors, on the CPU.
        rest: plain values, for ``state.json``.
    """

    step: int
    files: Mapping[str, Mapping[str, Tensor]]
    rest: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(t.nbytes for tensors in self.files.values() for t in tensors.values())


def capture(
    state: State,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: Mapping[str, Any],
    average: Mapping[str, Tensor] | None = None,
    *,
    copy: bool = True,
) -> Snapshot:
    """Everything that a checkpoint holds.

    Args:
        state: counters.
        parameters: name -> trained parameter.
        optimizer: its state is kept by parameter name.
        scaler: of float16 gradients; empty otherwise.
        average: the weights' moving average, where the run keeps one.
        copy: whether training may go on while it is written; without a copy it must wait.
    """
    weights = {name: _held(p.detach(), copy) for name, p in parameters.items()}
    moments, numbers = _optimizer_state(optimizer, parameters, copy)
    files = {"weights": _untied(weights), "optimizer": moments, "random": _random_states()}
    if average is not None:
        files["average"] = _untied({name: _held(each, copy) for name, each in average.items()})
    rest = {"state": asdict(state), "optimizer": numbers, "scaler": dict(scaler)}
    return Snapshot(state.step, files, rest)


def write(run: RunDir, snapshot: Snapshot) -> Path:
    """Writes ``checkpoints/step-…`` and returns it; an existing one of that step is replaced.

    Raises:
        DiskFullError: there is no room for it.
        TrainingError: it cannot be written for another reason.
    """
    final = run.checkpoint(snapshot.step)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    cure = f"make room, then: luthier train --resume {run.path}"
    try:
        temporary.mkdir(parents=True)
        if snapshot.size > shutil.disk_usage(temporary).free:
            raise disk.full(f"checkpoint '{final}'", temporary, snapshot.size, cure)
        for name, tensors in snapshot.files.items():
            save_file(dict(tensors), temporary / f"{name}.safetensors")
        text = json.dumps(snapshot.rest, indent=2)
        (temporary / "state.json").write_text(text, encoding="utf-8")
        sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(json.dumps(sums, indent=2), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        _put_in_place(temporary, final)
    # A full disk is a RuntimeError to torch and a SafetensorError to safetensors.
    except (OSError, RuntimeError, SafetensorError) as error:
        if disk.is_full(error):
            full = disk.full(f"checkpoint '{final}'", run.path, snapshot.size, cure)
            raise full from error
        raise TrainingError(
            f"checkpoint '{final}' cannot be written: {error}", cure=cure, code="checkpoint"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def load(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    moments: bool = True,
) -> tuple[State, dict[str, Any]]:
    """Puts a checkpoint back in place; returns its counters and the scaler's state.

    Args:
        folder: of the checkpoint.
        parameters: name -> trained parameter.
        optimizer: takes its state back.
        moments: whether it does; not where it is another optimizer than the one that wrote it.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to another model.
    """
    load_weights(folder, parameters)
    rest = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if moments:
        tensors = load_file(folder / "optimizer.safetensors")
        _restore_optimizer(optimizer, parameters, tensors, rest)
    _restore_random(load_file(folder / "random.safetensors"))
    state = _state(rest)
    state.best = None if state.best is None else (state.best[0], int(state.best[1]))
    return state, rest["scaler"]


def read_state(folder: Path) -> State:
    """The counters alone.

    Raises:
        TrainingError: they cannot be read.
    """
    try:
        rest = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return _state(rest)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise damaged(folder, "state.json cannot be read") from error


def _state(rest: Mapping[str, Any]) -> State:
    """Counters; where updates were not counted apart, each step was one."""
    return State(**{"updates": rest["state"]["step"], **rest["state"]})


def load_average(folder: Path) -> dict[str, Tensor] | None:
    """The weights' moving average, where the run kept one."""
    path = folder / "average.safetensors"
    return load_file(path) if path.is_file() else None


def load_weights(
    folder: Path, parameters: Mapping[str, nn.Parameter], *, averaged: bool = False
) -> None:
    """The trained parameters alone, or their average, as for the best checkpoint at the end.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to another model.
    """
    verify(folder)
    weights = load_file(folder / f"{'average' if averaged else 'weights'}.safetensors")
    shapes = {name: weight.shape for name, weight in weights.items()}
    wanted = {name: parameter.shape for name, parameter in parameters.items()}
    if differing := sorted(name for name, _ in shapes.items() ^ wanted.items()):
        raise TrainingError(f"checkpoint '{folder}' is of another model: see {differing[0]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def verify(folder: Path) -> None:
    """Compares every file with the manifest.

    Raises:
        TrainingError: a file is missing or differs.
    """
    try:
        sums = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        named = set(sums)
    except (OSError, ValueError, TypeError) as error:
        raise damaged(folder, f"{MANIFEST} cannot be read") from error
    if missing := sorted(_FILES - named):
        raise damaged(folder, f"{MANIFEST} does not name {missing[0]}")
    for name in sorted(named):
        path = folder / name
        try:
            whole = path.is_file() and _sha256(path) == sums[name]
        except OSError as error:  # a disk that no longer gives what it took
            raise damaged(folder, f"{name} cannot be read: {error.strerror}") from error
        if not whole:
            raise damaged(folder, f"{name} is not what was written")


def retain(run: RunDir, keep: int, best_step: int | None) -> None:
    """Deletes old checkpoints but the newest ``keep`` and the best; steps alone decide.

    Each is renamed first: one that is half deleted must not look like a checkpoint.
    """
    for step, folder in run.saved()[:-keep]:
        if step != best_step:
            gone = folder.with_name(f".{folder.name}{GONE}")
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
            shutil.rmtree(gone)


def _put_in_place(temporary: Path, final: Path) -> None:
    """Renames; what stood there is kept until that is done, see :mod:`luthier.engine.recover`."""
    old = final.with_name(f".{final.name}{OLD}")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    _flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def damaged(folder: Path, how: str) -> TrainingError:
    """The error of a checkpoint that is not what was written."""
    return TrainingError(
        f"checkpoint '{folder}' is damaged: {how}",
        cure="`luthier train --resume RUN` sets it aside and continues from the one before",
        code="damaged",
    )


def _held(tensor: Tensor, copy: bool) -> Tensor:
    """The tensor on the CPU, and where a copy is asked for, never the one that training changes."""
    moved = tensor.cpu().contiguous()
    return moved.clone() if copy and moved.data_ptr() == tensor.data_ptr() else moved


def _untied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors refuses shared memory; named parameters list tied ones once, views may stay."""
    seen: set[int] = set()
    out = {}
    for name, tensor in weights.items():
        pointer = tensor.data_ptr()
        out[name] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return out


def _optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], copy: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by ``parameter/entry``, plain numbers beside them."""
    names = {id(p): name for name, p in parameters.items()}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, entries in optimizer.state.items():
        for entry, value in entries.items():
            key = f"{names[id(parameter)]}/{entry}"
            if isinstance(value, Tensor):
                tensors[key] = _held(value.detach(), copy)
            else:
                numbers[key] = value
    return tensors, numbers


def _restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
    rest: Mapping[str, Any],
) -> None:
    optimizer.state.clear()
    for key, value in {**tensors, **rest["optimizer"]}.items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        if isinstance(value, Tensor):  # step counts too: fused optimizers keep them there
            value = value.to(parameter.device)
        optimizer.state[parameter][entry] = value


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
