"""The page on learning from samples: its recipes are recipes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier.core import kinds
from luthier.core.recipe import load

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reinforcement.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
#: A block may hold several recipes' objectives, each on its own line.
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("objective:")]


@pytest.mark.parametrize("line", LINES)
def test_every_objective_of_the_page_is_one(line: str) -> None:
    found: dict[str, Any] = yaml.safe_load(line)
    load({**found, "model": "builtin:nano", "data": {"train": [{"prompt": "a", "answer": "b"}]}})


def test_the_page_knows_every_objective_that_samples_and_every_reward() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sampling = [
        kind
        for kind in kinds.names("objectives")
        if hasattr(kinds.module("objectives", kind).Objective, "collect")
    ]
    assert len(LINES) > len(sampling)
    for kind in (*sampling, *kinds.names("rewards")):
        assert f"`{kind}`" in text, kind
    [whole] = [yaml.safe_load(block) for block in BLOCKS if block.startswith("model:")]
    load(whole)
    [rewards] = [yaml.safe_load(block) for block in BLOCKS if block.startswith("rewards:")]
    load({**whole, "objective": {"kind": "grpo", **rewards}})
