"""What each of two processes runs for ``test_loop.py``: fits on two ranks, and what came of them.

Run as ``python -m torch.distributed.run --nproc-per-node=2 two_ranks.py FOLDER``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.online_runs import GRPO, online_recipe
from engine.small import fingerprint, fitted, small_recipe
from luthier.engine.backend import Backend
from luthier.engine.loop import Loop


def full_recipe(output: Path) -> dict[str, Any]:
    """Eleven rows in steps of five: the last of an epoch has one, and a rank has none."""
    recipe = small_recipe(output, max_steps=6, batch_size=5, log_every=1, token_budget=150)
    recipe["model"]["config"]["attention_dropout"] = 0.0
    return recipe


def freeze_recipe(output: Path) -> dict[str, Any]:
    """The same with the lowest layer frozen, and what it gives kept."""
    return {**full_recipe(output), "method": {"kind": "freeze", "layers": 1}}


def lora_recipe(output: Path) -> dict[str, Any]:
    return small_recipe(
        output, {"kind": "lora", "rank": 4, "dropout": 0.2}, max_steps=6, token_budget=60
    )


def online_grpo(output: Path) -> dict[str, Any]:
    """Rollouts of five prompts: one rank has an answered prompt more than the other."""
    return online_recipe(output, GRPO, max_steps=3, batch_size=5)


def stopping_at(step: int, rank: int) -> Any:
    """Makes one rank hear a signal while it takes a step."""
    plain = Loop._step

    def heard(self: Loop) -> None:
        plain(self)
        if self.state.step == step and self.backend.rank == rank:
            self.stop.signal = 15

    return heard


def main(folder: Path) -> None:
    """Trains in float64 as one process would, then LoRA whole and stopped."""
    backend = Backend("cpu")
    empty = 0
    plain = Loop._chosen

    def counted(self: Loop, examples: Any, indices: Any) -> Any:
        nonlocal empty
        empty += not indices
        return plain(self, examples, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_chosen", counted)
        fitted(full_recipe(folder / "full"), wide=True)
        fitted(freeze_recipe(folder / "freeze"), wide=True)
        fitted(online_grpo(folder / "online"), wide=True)
    fitted(lora_recipe(folder / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_step", stopping_at(3, rank=1))
        status = fitted(lora_recipe(folder / "again")).status
    backend.barrier()
    fitted(lora_recipe(folder / "again"), resumed=True)
    totals = backend.totals({"empty": float(empty), "stopped": float(status == "stopped")})
    if backend.main:
        said = {
            "ranks": backend.ranks,
            "empty": totals["empty"],
            "stopped": ["stopped"] * int(totals["stopped"]),
            "whole": fingerprint(folder / "whole"),
            "resumed": fingerprint(folder / "again"),
        }
        (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")
    backend.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
