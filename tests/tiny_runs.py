"""A model and rows small enough to learn something in a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Small enough to learn something in a few steps.
TINY = {
    "architecture": "llama",
    "config": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 128,
    },
    "tokenizer": {"vocab_size": 400},
}


def sums() -> list[dict[str, str]]:
    """Questions with answers that a tiny model can learn."""
    return [
        {"prompt": f"What is {a} plus {b}?", "response": f"The sum is {a + b}."}
        for a in range(8)
        for b in range(8)
    ]


def tiny_recipe(output: Path, **changes: Any) -> dict[str, Any]:
    """A recipe that takes seconds."""
    return {
        "model": TINY,
        "method": "full",
        "data": {"train": sums()},
        "training": {
            "max_steps": 12,
            "learning_rate": 5e-3,
            "precision": "float32",
            "evaluate_every": 6,
            "threads": 1,
            "trackers": [],
        },
        "evaluation": {"samples": 4, "generate_rows": 4, "max_new_tokens": 16, "resamples": 100},
        "output": str(output),
        **changes,
    }
