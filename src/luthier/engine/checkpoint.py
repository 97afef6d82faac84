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
    """
    final = run.checkpoint(state.step)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        weights = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
        save_file(_untied(weights), temporary / "weights.safetensors")
        moments, numbers = _optimizer_state(optimizer, parameters)
        save_file(moments, temporary / "optimizer.safetensors")
        save_file(_random_states(), temporary / "random.safetensors")
        rest = {"state": asdict(state), "optimizer": numbers, "scaler": dict(scaler)}
        (temporary / "state.json").write_text(json.dumps(rest, indent=2), encoding="utf-8")
        sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(json.dumps(sums, indent=2), encoding="utf-8")
        for path in temporary.iterdir():
            _flush(path)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _flush(final.parent)
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
    verify(folder)
    weights = load_file(folder / "weights.safetensors")
    missing = set(parameters) - set(weights)
    if missing:
        raise TrainingError(
            f"checkpoint '{folder}' is of another model: it lacks {sorted(missing)[0]}"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    rest = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    _restore_optimizer(optimizer, parameters, load_file(folder / "optimizer.safetensors"), rest)
    _restore_random(load_file(folder / "random.safetensors"))
    state = State(**rest["state"])
    state.best = None if state.best is None else (state.best[0], int(state.best[1]))
    return state, rest["scaler"]


def read_state(folder: Path) -> State:
    """The counters alone."""
    rest = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return State(**rest["state"])


def load_weights(folder: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """The trained parameters alone, as for the best checkpoint at the end."""
    verify(folder)
    weights = load_file(folder / "weights.safetensors")
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
        raise TrainingError(f"checkpoint '{folder}' has no readable manifest") from error
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise TrainingError(f"checkpoint '{folder}' is damaged: {name} is not what was written")


def retain(run: RunDir, keep: int, best_step: int | None) -> None:
    """Deletes old checkpoints but the newest ``keep`` and the best."""
    saved = run.saved()
    for step, folder in saved[:-keep]:
        if step != best_step:
            shutil.rmtree(folder)


def _untied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """safetensors refuses shared memory; named parameters list tied ones once, views may stay."""
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
