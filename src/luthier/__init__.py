"""Luthier: fine-tune a language model, and prove that it got better."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Else huggingface_hub fetches a list from the hub to describe this process, even to load a file.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

#: Public name -> the module that defines it; loaded on first use, so that a bare import is quick.
_LAZY = {
    "train": "luthier.run",
    "evaluate": "luthier.run",
    "Run": "luthier.run",
    "load": "luthier.models.load",
    "open": "luthier.opening",
    "UserError": "luthier.core.errors",
    "Recipe": "luthier.core.recipe",
}

__all__ = ["Recipe", "Run", "UserError", "__version__", "evaluate", "load", "open", "train"]

if TYPE_CHECKING:
    from luthier.core.errors import UserError
    from luthier.core.recipe import Recipe
    from luthier.models.load import load
    from luthier.opening import open  # noqa: A004 - asked for as luthier.open
    from luthier.run import Run, evaluate, train


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'luthier' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
