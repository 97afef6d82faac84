"""Runs that are killed, as ``test_killed.py`` asks: each a process of its own, all of one parent.

The parent imports everything once and forks, so that a run costs its training alone. A child kills
itself before its n-th call of whatever writes to the disk, or is killed from outside after a
while; another child resumes what is left. Run as ``python killing.py MODE FOLDER``; prints JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders

import luthier
from engine.small import small_loop
from luthier.core.rundir import RunDir
from luthier.engine import checkpoint, recover

#: Everything by which a run changes what lies on the disk: (where, name).
WRITES: list[tuple[Any, str]] = [
    (os, "fsync"),
    (shutil, "rmtree"),
    (checkpoint, "save_file"),
    *((Path, name) for name in ("mkdir", "rename", "replace", "unlink", "write_text")),
]


def recipe(folder: Path, name: str, **training: Any) -> dict[str, Any]:
    """LoRA with dropout over packed rows, three micro-batches a step, two checkpoints an epoch."""
    rows = folder / "rows.jsonl"
    if not rows.is_file():
        made = [
            {"prompt": f"tell me of number {i}", "response": builders.SENTENCES[i % 6]}
            for i in range(14)
        ]
        rows.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return {
        "model": str(folder / "base"),
        "method": {"kind": "lora", "rank": 4, "dropout": 0.2},
        "data": {"train": str(rows), "validation": 0.2},
        "training": {
            "max_steps": 5,
            "epochs": 99,
            "batch_size": 5,
            "token_budget": 120,
            "learning_rate": 5e-3,
            "precision": "float32",
            "evaluate_every": 3,
            "save_every": 2,
            "keep": 1,
            "log_every": 1,
            "threads": 1,
            "device": "cpu",
            "trackers": [],
            **training,
        },
        "evaluation": {"samples": 1, "generate_rows": 1, "max_new_tokens": 2, "resamples": 100},
        "output": str(folder / name),
    }


def make_base(folder: Path) -> None:
    """A tiny model to put LoRA on, with dropout in its attention."""
    tokenizer = builders.tokenizer()
    model = builders.talking(len(tokenizer), attention_dropout=0.1, num_hidden_layers=1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def child(work: Callable[[], None], after: float | None = None) -> int:
    """Runs ``work`` in a process of its own, killed after some seconds; returns how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                work()
        except BaseException:
            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def dying_at(number: int) -> None:
    """From here on this process kills itself before its n-th write."""
    seen = 0

    def before(plain: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **settings: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **settings)

        return counted

    for place, name in WRITES:
        setattr(place, name, before(getattr(place, name)))


def begin_or_resume(values: dict[str, Any]) -> None:
    """What a person does after a kill: resume what is a run, else begin again."""
    folder = RunDir(Path(values["output"]))
    if folder.is_run:
        luthier.train(resume=folder.path, quiet=True)
    else:
        luthier.train(values, quiet=True)


def outcome(values: dict[str, Any]) -> dict[str, Any]:
    """What a run left: the hash of its weights, whether it is whole, what should not be there."""
    folder = RunDir(Path(values["output"]))
    file = folder.model / "adapter_model.safetensors"
    left = [p.name for p in folder.path.rglob(".*")]
    return {
        "hash": hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "",
        "finished": folder.finished,
        "steps": [step for step, _ in folder.saved()],
        "left": left,
        "files": sorted(p.name for p in folder.path.iterdir() if not p.name.startswith(".")),
        "aside": [p.name for p in folder.set_aside()],
    }


def at_every_write(folder: Path, first: int, step: int) -> list[dict[str, Any]]:
    """Killed before write ``first``, ``first + step`` … until a run gets through unharmed."""
    found = []
    number = first
    while True:
        values = recipe(folder, f"killed-{number}")

        def dying(number: int = number, values: dict[str, Any] = values) -> None:
            dying_at(number)
            luthier.train(values, quiet=True)

        ended = child(dying)
        half = RunDir(Path(values["output"]))
        finished = outcome(values) if half.finished and ended else None
        resumed = child(lambda values=values: begin_or_resume(values)) if ended else 0  # type: ignore[misc]
        found.append(
            {
                "write": number,
                "ended": ended,
                "looked_finished": finished,
                "resumed": resumed,
                **outcome(values),
            }
        )
        shutil.rmtree(half.path)
        if ended != -signal.SIGKILL:
            return found
        number += step


def in_a_save(folder: Path) -> list[dict[str, Any]]:
    """Killed before each write of a save that replaces a checkpoint and deletes an older one."""
    found = []
    for number in range(1, 100):
        run = RunDir(folder / f"save-{number}")
        loop = small_loop(run.path, max_steps=2, save_every=1, keep=1)
        loop._step()
        save(loop)
        loop._step()
        save(loop)
        old = loop.run.checkpoint(1)
        old.mkdir()  # one that retention has still to delete
        (old / "weights.safetensors").write_bytes(b"old")
        loop.state.tokens += 1  # to tell the two checkpoints of step 2 apart

        def dying(number: int = number, loop: Any = loop) -> None:
            snapshot = checkpoint.capture(loop.state, loop.parameters, loop.optimizer, {})
            dying_at(number)
            checkpoint.write(loop.run, snapshot)
            checkpoint.retain(loop.run, 1, None)

        ended = child(dying)
        said: list[str] = []
        kept = recover.newest_sound(run, said.append)
        found.append(
            {
                "write": number,
                "ended": ended,
                "kept": kept.name if kept else "",
                "tokens": checkpoint.read_state(kept).tokens - loop.state.tokens if kept else None,
                "names": sorted(p.name for p in run.checkpoints.iterdir()),
                "said": said,
            }
        )
        if ended == 0:
            break
    return found


def save(loop: Any) -> None:
    """Saves at once."""
    loop._save()
    loop._writer.wait()


def at_random(folder: Path, took: float, seed: int, kills: int) -> list[dict[str, Any]]:
    """One run, killed and resumed again and again, at any moment of the time that one takes."""
    rng = random.Random(seed)
    values = recipe(folder, f"random-{seed}")
    ends = []
    for _ in range(kills):
        ends.append(child(lambda: begin_or_resume(values), rng.uniform(0.05, 0.9) * took))
    ends.append(child(lambda: begin_or_resume(values)))
    return [{"ends": ends, **outcome(values)}]


def main() -> None:
    """One mode, its findings as JSON on the last line."""
    mode, folder = sys.argv[1], Path(sys.argv[2])
    numbers = [int(word) for word in sys.argv[3:]]
    if mode == "save":
        print(json.dumps({"found": in_a_save(folder)}))
        return
    make_base(folder / "base")
    whole = recipe(folder, "whole")
    began = time.monotonic()
    assert child(lambda: begin_or_resume(whole)) == 0
    took = time.monotonic() - began
    if mode == "random":
        found = at_random(folder, took, *numbers)
    else:
        found = at_every_write(folder, *numbers)
    print(json.dumps({"whole": outcome(whole), "found": found}))


if __name__ == "__main__":
    main()
