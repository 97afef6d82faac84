"""Law 9: whatever is cut, left out or replaced on the way to examples is said, with its number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import sums, tiny_recipe

from luthier.assemble import TEMPLATE_EVENTS, assemble, describe
from luthier.core import recipe as recipes

COUNTS: dict[str, Any] = {
    "rows": 1200,
    "examples": 1100,
    "tokens": 54321,
    "targets": 4321,
    "skipped": 0,
    "cut": {"examples": 0, "windows": 0, "tokens": 0, "targets": 0, "dropped": 0},
    "template": {},
}
PLAIN = "train: 1,200 rows, 1,100 examples, 54,321 tokens, 4,321 of them learned"


def said(**changes: Any) -> str:
    cut = {**COUNTS["cut"], **changes.pop("cut", {})}
    return describe("train", {**COUNTS, **changes, "cut": cut})


def test_where_nothing_was_lost_nothing_is_said_of_it() -> None:
    assert said() == PLAIN


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"skipped": 1234}, "1,234 rows skipped"),
        ({"cut": {"dropped": 7}}, "0 tokens cut away (0 learned ones), 7 examples dropped"),
        (
            {"cut": {"examples": 2, "tokens": 1500, "targets": 20}},
            "1,500 tokens cut away (20 learned ones), 0 examples dropped",
        ),
        (
            {"cut": {"examples": 3, "windows": 9}},
            "3 long documents divided into 9 windows",
        ),
        ({"template": {"system_dropped": 4}}, "4 system turns left out"),
        ({"template": {"something_new": 5}}, "5 something_new"),
    ],
)
def test_law_9_every_loss_is_said(changes: dict[str, Any], words: str) -> None:
    assert said(**changes) == f"{PLAIN}; {words}"


@pytest.mark.parametrize("event", TEMPLATE_EVENTS)
def test_law_9_what_the_template_changed_is_said(event: str) -> None:
    assert said(template={event: 3}) == f"{PLAIN}; 3 {TEMPLATE_EVENTS[event]}"


def test_law_9_a_run_says_what_it_cut_and_skipped(tmp_path: Path) -> None:
    rows = [*sums(), {"prompt": "word " * 90, "response": "long " * 90}, {"prompt": "no answer"}]
    data = {"train": rows, "validation": 0, "max_length": 64, "overlong": "drop"}
    recipe = tiny_recipe(tmp_path, data={**data, "malformed": "skip"})
    lines: list[str] = []
    assemble(recipes.load(recipe), lines.append)
    (line,) = [line for line in lines if line.startswith("train: ")]
    assert line.endswith(", 1 examples dropped; 1 rows skipped"), line
    assert "tokens cut away" in line
