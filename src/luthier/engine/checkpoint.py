"""Checkpoints: everything that makes a resumed run equal one that was never stopped.

A checkpoint is a folder of safetensors and JSON with a manifest of sha256 sums, written beside
its final name and renamed once it is whole and on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from luthier.core.errors import TrainingError
from luthier.core.rundir import RunDir

MANIFEST = "manifest.json"


@dataclass
class State:
    """Where a run stands between two steps.

    Attributes:
        step: optimizer steps done.
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
    """

    step: int = 0
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


def save(
    run: RunDir,
    state: State,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: Mapping[str, Any],
) -> Path:
    """Writes ``checkpoints/step-…`` and returns it; an existing one of that step is replaced.

    Args:
        run: the run folder.
        state: counters.
        parameters: name -> trained parameter.
        optimizer: its state is kept by parameter name.
        scaler: of float16 gradients; empty otherwise.

    Raises:
        TrainingError: there is no room for it, or it cannot be written.
    """
    final = run.checkpoint(state.step)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    moments, numbers = _optimizer_state(optimizer, parameters)
    files = {"weights": _untied(weights), "optimizer": moments, "random": _random_states()}
    rest = {"state": asdict(state), "optimizer": numbers, "scaler": dict(scaler)}
    try:
        temporary.mkdir(parents=True)
        _check_space(temporary, files.values())
        for name, tensors in files.items():
            save_file(tensors, temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(json.dumps(rest, indent=2), encoding="utf-8")
        sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(json.dumps(sums, indent=2), encoding="utf-8")
        for path in temporary.iterdir():
            _flush(path)
        _put_in_place(temporary, final)
    # A full disk is a RuntimeError to torch and a SafetensorError to safetensors.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(
            f"checkpoint '{final}' cannot be written: {error}",
            cure=f"make room, then: luthier train --resume {run.path}",
            code="checkpoint",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def load(
    folder: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[State, dict[str, Any]]:
    """Puts a checkpoint back in place; returns its counters and the scaler's state.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to another model.
    """
    load_weights(folder, parameters)
    rest = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    _restore_optimizer(optimizer, parameters, load_file(folder / "optimizer.safetensors"), rest)
    _restore_random(load_file(folder / "random.safetensors"))
    state = State(**rest["state"])
    state.best = None if state.best is None else (state.best[0], int(state.best[1]))
    return state, rest["scaler"]


def read_state(folder: Path) -> State:
    """The counters alone.

    Raises:
        TrainingError: they cannot be read.
    """
    try:
        rest = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return State(**rest["state"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, "state.json cannot be read") from error


def load_weights(folder: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """The trained parameters alone, as for the best checkpoint at the end.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to another model.
    """
    verify(folder)
    weights = load_file(folder / "weights.safetensors")
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
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read") from error
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise _damaged(folder, f"{name} is not what was written")


def retain(run: RunDir, keep: int, best_step: int | None) -> None:
    """Deletes old checkpoints but the newest ``keep`` and the best."""
    saved = run.saved()
    for step, folder in saved[:-keep]:
        if step != best_step:
            shutil.rmtree(folder)


def _check_space(folder: Path, files: Iterable[Mapping[str, Tensor]]) -> None:
    needed = sum(t.nbytes for tensors in files for t in tensors.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"it needs {needed / 2**20:,.0f} MB, and {free / 2**20:,.0f} MB are free")


def _put_in_place(temporary: Path, final: Path) -> None:
    """Renames; what stood there is kept until that is done."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    _flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _damaged(folder: Path, how: str) -> TrainingError:
    return TrainingError(
        f"checkpoint '{folder}' is damaged: {how}",
        cure="move it away; the run then continues from the one before",
        code="damaged",
    )


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
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by ``parameter/entry``, plain numbers beside them."""
    names = {id(p): name for name, p in parameters.items()}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, entries in optimizer.state.items():
        for entry, value in entries.items():
            key = f"{names[id(parameter)]}/{entry}"
            if isinstance(value, Tensor):
                tensors[key] = value.detach().cpu().contiguous()
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
