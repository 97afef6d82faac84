"""Groups that a split must not divide: a column's, and nearly equal texts'."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import sums

from luthier.checking import check_recipe
from luthier.core import recipe as recipes
from luthier.core.errors import DataError
from luthier.core.records import Conversation, Origin, Record, Text, Turn
from luthier.data.clusters import NEAR, NONE, by_column, near, near_clusters
from luthier.data.holding import hold_out
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
    assert list(by_column(records, "who", values)) == [(0, 0), (0, 1)]
    with pytest.raises(DataError, match="no row has a column 'who'"):
        by_column(records, "who", {})


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
    assert "8 groups by who and near duplicates; none is on both sides" in said


def alike() -> list[dict[str, Any]]:
    """Fifteen questions, each asked four times and answered nearly the same."""
    rows = [{"prompt": "", "response": f"{'so ' * (n % 4)}it is {n // 4}"} for n in range(60)]
    for n, row in enumerate(rows):
        asked = f"{LONG}, {n // 4} and {n // 4 + 1}"
        row["prompt"] = " ".join(f"{word}{n // 4}" for word in asked.split())
    return rows


def test_near_duplicates_are_on_one_side_unless_the_recipe_divides_them(tmp_path: Path) -> None:
    [report] = check_recipe(grouped(tmp_path, alike(), group=NONE))
    assert report.findings.totals["D041"] > 0
    for group in ({}, {"group": NEAR}):
        recipe = grouped(tmp_path, alike(), **group)
        [mended] = check_recipe(recipe)
        assert mended.findings.totals["D041"] == 0
        assert mended.findings.totals["D051"] > 0
        train, held, said = sides(recipe)
        assert not {(n - 1) // 4 for n in train} & {(n - 1) // 4 for n in held}
        assert len(held) == 16
        assert "60 rows in 15 groups that say nearly the same; none is divided" in said


def test_a_column_keeps_near_duplicates_together_as_well(tmp_path: Path) -> None:
    rows = [{**row, "who": n % 4} for n, row in enumerate(alike())]
    rows += [{**row, "who": 10 + n % 4} for n, row in enumerate(sums())]
    train, held, _ = sides(grouped(tmp_path, rows, group="who"))
    assert not {(n - 1) // 4 for n in train if n < 61} & {(n - 1) // 4 for n in held if n < 61}
    assert not {rows[n - 1]["who"] for n in train} & {rows[n - 1]["who"] for n in held}


def test_rows_that_are_all_alike_are_divided_and_it_is_said(tmp_path: Path) -> None:
    rows = [{"prompt": f"{LONG}, {LONG.upper()} {n}", "response": "yes"} for n in range(20)]
    _, held, said = sides(grouped(tmp_path, rows))
    assert len(held) == 5
    assert any(line.startswith("rows are too alike to keep near duplicates") for line in said)
    with pytest.raises(DataError, match="no row can be set aside"):
        sides(grouped(tmp_path, rows, group=NEAR))


def test_pairs_that_the_clusters_miss_are_linked_once_a_split_divides_them() -> None:
    """A text is linked to one that it is like, not to all; what a draw leaves apart is redrawn."""
    drawing = random.Random(59)
    texts = []
    for _ in range(300):
        words = [f"w{n}" for n in range(40)]
        for _ in range(drawing.randint(1, 5)):
            words[drawing.randrange(40)] = f"x{drawing.randrange(1000)}"
        texts.append(" ".join(words))
    texts += [f"other {n} words {n * n} here {n + 7}" for n in range(300)]
    records: list[Record] = [Text(Origin("a", n), text) for n, text in enumerate(texts)]
    with near(records) as found:
        drawn = hold_out(records, 0.3, 59, None, {})
        assert len(drawn.held) > 90
        assert not list(found.across(drawn.held))


def test_a_group_without_an_effect_is_said(tmp_path: Path) -> None:
    recipe = grouped(tmp_path, sums(), group=NEAR, validation=0)
    assert "data.group has no effect: no share of the rows is held out" in preview(recipe).said
