"""What the tests of recipes share: a file to write to, and how a recipe is refused."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.core.errors import Fault, RecipeError
from luthier.core.recipe import load

GOOD: dict[str, Any] = {"model": "builtin:nano", "data": {"train": "rows.jsonl"}}
FILE = "model: builtin:nano\ndata: {train: rows.jsonl}\n"


def refused(source: Any, *overrides: str) -> tuple[Fault, ...]:
    with pytest.raises(RecipeError) as caught:
        load(source, overrides)
    assert caught.value.exit_code == 2
    return caught.value.faults


def said(source: Any, *overrides: str) -> list[str]:
    return [f"{fault.place}: {fault.message}" for fault in refused(source, *overrides)]


def only(source: Any, *overrides: str) -> str:
    [line] = said(source, *overrides)
    return line
