"""What ``test_memory.py`` runs in a process of its own: a step in less memory than it wants."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import builders
import torch

from engine.small import Kept, small_loop, weights
from luthier.engine.loop import Loop

SIZES = [60] * 512
BUDGET = 60 * 512


def loop(folder: Path, kept: Kept, budget: int = BUDGET) -> Loop:
    """One step over 30,720 tokens in a single micro-batch, unless the budget is smaller."""
    torch.manual_seed(0)
    return small_loop(
        folder,
        model=builders.tiny("llama", hidden_size=64, intermediate_size=256),
        train=builders.examples(SIZES),
        budget=budget,
        batch_size=512,
        max_steps=1,
        trackers=[kept],
    )


class Relief(Kept):
    """Gives the memory back once the step is made: what is under test ends there.

    The checkpoint after it is written by a library that aborts where it gets none.
    """

    def log(self, event: Any) -> None:
        super().log(event)
        if event["kind"] == "step":
            unlimited()


def unlimited() -> None:
    """As much address space as there is."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def address_space() -> int:
    """Bytes of this process's address space now."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def main() -> None:
    """Trains with so many bytes beyond what the process has; prints what came of it."""
    folder, spare = Path(sys.argv[1]), int(sys.argv[2])
    kept = Relief()
    starved = loop(folder / "starved", kept)
    loop(folder / "warm", Kept(), 60)._step()  # libraries that load at first use
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + spare, resource.RLIM_INFINITY))
    starved.train()
    unlimited()
    enough = Kept()
    fed = loop(folder / "fed", enough)
    fed.train()
    apart = builders.gap(weights(starved), weights(fed))
    print(
        json.dumps(
            {
                "budget": starved.budget,
                "losses": [kept.of("step")[0]["loss"], enough.of("step")[0]["loss"]],
                "apart": apart,
                "warnings": kept.of("warning"),
                "steps": starved.state.step,
            }
        )
    )


if __name__ == "__main__":
    main()
