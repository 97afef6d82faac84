"""Groups that a split must not divide: a column's, and nearly equal texts'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import sums

from luthier.checking import check_recipe
from luthier.core import recipe as recipes
from luthier.core.errors import DataError
from luthier.core.records import Conversation, Origin, Record, Text, Turn
from luthier.data.clusters import NEAR, near_clusters, together
from luthier.preview import preview

LONG = "the quick brown fox jumps over the lazy dog while the band plays on and the rain falls down"


def test_nearly_equal_texts_are_one_cluster() -> None:
    said = [LONG, "something else entirely, and nothing like it", f"{LONG} again", LONG.upper()]
    records: list[Record] = [Text(Origin("a", n), text) for n, text in enumerate(said)]
    assert near_clusters(records) == [0, 1, 0, 0]


def test_a_system_turn_that_all_share_joins_nobody() -> None:
    system = Turn("system", LONG)
    records: list[Record] = [
        Conversation(Origin("a", n), (system, Turn("user", asked), Turn("assistant", answer)))
        for n, (asked, answer) in enumerate(
            [("is it one of them or not", "yes it is"), ("how many of these are left", "ten or so")]
        )
    ]
    assert near_clusters(records) == [0, 1]


def test_rows_without_a_value_stand_alone() -> None:
    records: list[Record] = [Text(Origin("a", n), str(n)) for n in range(4)]
    values = {Origin("a", 0): 7, Origin("a", 1): "7", Origin("a", 2): None}
    assert together(records, "who", values) == ["7", "7", ("row", 2), ("row", 3)]
    with pytest.raises(DataError, match="no row has a column 'who'"):
        together(records, "who", {})


def grouped(folder: Path, rows: list[dict[str, Any]], **data: Any) -> recipes.Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"train": str(path), "validation": 0.25, **data}
    return recipes.load({"model": "builtin:nano", "objective": "sft", "data": spec})


def sides(recipe: recipes.Recipe) -> tuple[set[int], set[int], list[str]]:
    seen = preview(recipe)
    assert seen.held is not None
    lines = [{r.origin.line for r in part.records} for part in (seen.train, seen.held)]
    return lines[0], lines[1], seen.said


def test_a_column_keeps_its_rows_on_one_side(tmp_path: Path) -> None:
    rows = [{**row, "who": f"customer {n % 8}"} for n, row in enumerate(sums())]
    train, held, said = sides(grouped(tmp_path, rows, group="who"))
    assert len(held) == 16
    assert not {(n - 1) % 8 for n in train} & {(n - 1) % 8 for n in held}
    assert "8 groups by who; none is on both sides of the split" in said


def test_near_duplicates_leak_unless_they_are_a_group(tmp_path: Path) -> None:
    """What the check finds as a leak of the recipe's own split, the group mends."""
    rows = [
        {
            "prompt": f"{LONG}, {n // 4} and {n // 4 + 1}",
            "response": f"{'so ' * (n % 4)}it is {n // 4}",
        }
        for n in range(60)
    ]
    for n, row in enumerate(rows):
        row["prompt"] = " ".join(f"{word}{n // 4}" for word in row["prompt"].split())
    [report] = check_recipe(grouped(tmp_path, rows))
    assert report.findings.totals["D041"] > 0
    [mended] = check_recipe(grouped(tmp_path, rows, group=NEAR))
    assert mended.findings.totals["D041"] == 0
    assert mended.findings.totals["D051"] > 0


def test_a_group_without_an_effect_is_said(tmp_path: Path) -> None:
    recipe = grouped(tmp_path, sums(), group=NEAR, validation=0)
    assert "data.group has no effect: no share of the rows is held out" in preview(recipe).said
