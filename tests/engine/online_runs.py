"""Runs that learn from their own samples, small enough to take a second or two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.small import small_recipe

#: Settings that an objective cannot do without here, so that a step shows all that it does.
GRPO = {"kind": "grpo", "answers": 4, "kl": 0.05, "mini_batches": 2, "inner_epochs": 2}


def letters(prompt: str, answer: str, check: Mapping[str, Any]) -> float:
    """A reward that a model from scratch can climb within a dozen steps: bytes that are letters."""
    return sum(sign.isascii() and sign.isalpha() for sign in answer) / max(1, len(answer))


def online_recipe(output: Path, objective: Any = GRPO, **training: Any) -> dict[str, Any]:
    """Prompts for a model from scratch that is to say letters."""
    recipe = small_recipe(output, "full", **training)
    own = {"kind": objective} if isinstance(objective, str) else objective
    reward = {"kind": "function", "function": "engine.online_runs:letters"}
    rows = [{"prompt": f"tell me of number {i}"} for i in range(14)]
    recipe["objective"] = {"rewards": [reward], "max_new_tokens": 8, **own}
    recipe["data"] = {"train": rows, "validation": 0.2, "check": "off"}
    recipe["model"]["tokenizer"] = {"vocab_size": 360}
    recipe["evaluation"] = {
        "samples": 2,
        "generate_rows": 3,
        "max_new_tokens": 8,
        "resamples": 100,
    }
    recipe["training"] |= {
        "max_steps": 6,
        "batch_size": 4,
        "token_budget": 240,
        "learning_rate": 1e-2,
        "evaluate_every": 3,
        "log_every": 1,
        **training,
    }
    return recipe
