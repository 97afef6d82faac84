"""``data prepare``: ready without training, and its rows read as the same records again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import sums, tiny_recipe

import luthier
from luthier import cli
from luthier.core import recipe as recipes
from luthier.core.errors import DataError
from luthier.core.records import (
    Conversation,
    Labelled,
    MultipleChoice,
    Origin,
    Pair,
    Preference,
    Record,
    SourceTarget,
    Tagged,
    Text,
    Turn,
)
from luthier.data import prepare as encoding
from luthier.data.recognise import read_records, recognise
from luthier.data.sources import read
from luthier.data.writing import row_of, write_rows
from luthier.preparing import prepare

AT = Origin("made", 1)
TOOLS = json.dumps([{"type": "function", "function": {"name": "f"}}])
CALLS = json.dumps([{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}])
ASKED = (Turn("user", "ask"),)


@pytest.mark.parametrize(
    "record",
    [
        Text(AT, "one\ntwo"),
        Conversation(AT, (Turn("system", "s"), *ASKED, Turn("assistant", "b"))),
        Conversation(AT, (Turn("tools", TOOLS), *ASKED, Turn("assistant", "", CALLS))),
        Conversation(AT, (*ASKED, Turn("assistant", "<think>w</think>b"))),
        Labelled(AT, "a", "x"),
        Labelled(AT, "a", "x", "b"),
        Labelled(AT, "a", ("x", "y")),
        Labelled(AT, "a", 0.5),
        Tagged(AT, ("Jo", "ran"), ("B-PER", "O")),
        SourceTarget(AT, "a", "b"),
        Pair(AT, "a", "b"),
        Pair(AT, "a", "b", ("c", "d")),
        Preference(AT, ASKED, (Turn("assistant", "b"),), (Turn("assistant", "c"),)),
        Preference(AT, ASKED, (Turn("assistant", "b"),), (Turn("assistant", "c"),), 0.5),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_is_written_is_read_again(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [record])
    [source] = read(str(path))
    fmt, _ = recognise(source.rows)
    [again], _ = read_records(source, fmt, {}, "refuse")
    assert replace(again, origin=AT) == record


def test_what_no_format_writes_is_refused() -> None:
    with pytest.raises(DataError, match="a MultipleChoice cannot be written"):
        row_of(MultipleChoice(AT, "q", ("a", "b"), 0))


def recipe_of(folder: Path, **changes: Any) -> recipes.Recipe:
    path = folder / "rows.jsonl"
    rows = [*sums(), *sums()[:6]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "train": str(path),
        "validation": 0.25,
        "clean": "duplicates",
        **changes.pop("data", {}),
    }
    return recipes.load(tiny_recipe(folder / "run", data=data, **changes))


def test_training_afterwards_finds_its_tokens_made(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path, model=str(tiny_run))
    [made] = prepare(recipe)

    def never(*_args: Any) -> Any:
        raise AssertionError("encoded again")

    monkeypatch.setattr(encoding, "encoder", never)
    run = luthier.train(recipe, quiet=True)
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["data"]["train"] == made.counts["train"]
    assert made.counts["train"]["cleaned"] == {"1 duplicates": {"changed": 0, "dropped": 6}}


def test_the_command_writes_both_sides(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe_of(tmp_path, model=str(tiny_run)).resolved()))
    out = tmp_path / "clean"
    assert cli.run(["data", "prepare", str(path), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "clean, duplicates: 0 rows changed, 6 dropped" in said
    assert "train: 48 rows" in said
    rows = {
        name: (out / f"{name}.jsonl").read_text().splitlines() for name in ("train", "validation")
    }
    assert {name: len(lines) for name, lines in rows.items()} == {"train": 48, "validation": 16}
    assert not set(rows["train"]) & set(rows["validation"])


def test_what_training_refuses_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, model=str(tiny_run))
    with (tmp_path / "rows.jsonl").open("a") as stream:
        stream.write('{"prompt": "a", "response": ""}\n')
    with pytest.raises(DataError, match="is empty"):
        prepare(recipe)


def test_stages_are_prepared_one_by_one(tiny_run: Path, tmp_path: Path) -> None:
    stages = [{"objective": "language_modeling"}, {"objective": "sft"}]
    made = prepare(recipe_of(tmp_path, model=str(tiny_run), stages=stages), tmp_path / "out")
    assert len(made) == 2
    assert [file.parent.name for one in made for file in one.files] == ["stage-1"] * 2 + [
        "stage-2"
    ] * 2
