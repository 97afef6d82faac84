"""``inspect`` says what training would do, and says it also where training would refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from tiny_runs import sums, tiny_recipe

from luthier import cli, inspection
from luthier.assemble import assemble
from luthier.commands.lengths import histogram
from luthier.core import recipe as recipes
from luthier.inspection import inspect, learned


def recipe_of(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> recipes.Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": str(path), **changes.pop("data", {})}
    return recipes.load(tiny_recipe(folder / "run", data=data, **changes))


def long_rows() -> list[dict[str, str]]:
    """Every fifth one is longer than a context of 128 tokens."""
    made = sums()
    for row in made[::5]:
        row["prompt"] += " really" * 120
    return made


def unsaid(_line: str) -> None:
    pass


def test_figures_are_those_of_the_training(
    tiny_run: Path, tiny_lora_run: Path, tmp_path: Path
) -> None:
    method = {"kind": "lora", "rank": 4}
    recipe = recipe_of(tmp_path, sums(), model=str(tiny_run), method=method)
    [found] = inspect(recipe)
    environment = json.loads((tiny_lora_run / "environment.json").read_text())
    assert environment["parameters"] == {"trainable": found.trainable, "total": found.total}
    counts = environment["data"]["train"]
    assert found.train.examples == counts["examples"]
    assert int(found.train.lengths.sum()) == counts["tokens"]
    assert found.train.targets == counts["targets"]
    assert found.steps == (12, -(-counts["examples"] // 16))
    assert found.refusals == []
    assert not (tmp_path / "run").exists(), "something was trained"


def test_no_weight_is_read(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors

    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were opened")

    monkeypatch.setattr(safetensors, "safe_open", opened)
    monkeypatch.setattr("transformers.modeling_utils.safe_open", opened)
    recipe = recipe_of(tmp_path, sums(), model=str(tiny_run), method="full")
    [found] = inspect(recipe)
    assert found.trainable == found.total > 100_000


def test_a_continued_adapter_counts_as_it_stands(tiny_lora_run: Path, tmp_path: Path) -> None:
    method = {"kind": "lora", "rank": 4}
    [found] = inspect(recipe_of(tmp_path, sums(), model=str(tiny_lora_run), method=method))
    environment = json.loads((tiny_lora_run / "environment.json").read_text())
    assert environment["parameters"] == {"trainable": found.trainable, "total": found.total}


@pytest.mark.parametrize("policy", ["left", "right", "drop"])
def test_what_would_be_cut_is_what_training_cuts(
    policy: str, tiny_run: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, long_rows(), model=str(tiny_run), data={"overlong": policy})
    [found] = inspect(recipe)
    parts = assemble(recipe, unsaid)
    counts = parts.train[1].counts
    cut = found.train.cut
    assert counts["cut"] == {name: getattr(cut, name) for name in counts["cut"]}
    assert cut.tokens > 0
    assert found.train.examples == counts["examples"]
    assert found.refusals == []


def test_overlong_rows_are_counted_where_training_would_refuse(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = long_rows()
    recipe = recipe_of(tmp_path, rows, model=str(tiny_run))
    [found] = inspect(recipe)
    assert found.validation is not None
    refused = len(found.train.overlong) + len(found.validation.overlong)
    assert refused == len(rows[::5])
    assert found.train.lengths[-1] > 128
    assert all("rows.jsonl:" in fault.place for fault in found.refusals)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert cli.run(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Training would refuse this" in out
    assert f"train: {len(found.train.overlong)} too long" in out
    assert f"and {refused - 5} more like these" in out


def test_malformed_rows_are_named_and_the_others_shown(tiny_run: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*sums(), {"prompt": 5}]
    [found] = inspect(recipe_of(tmp_path, rows, model=str(tiny_run)))
    assert found.train.records + found.validation.records == len(sums())  # type: ignore[union-attr]
    assert any(fault.place.endswith(f"rows.jsonl:{len(rows)}") for fault in found.refusals)


def test_long_documents_become_windows(tmp_path: Path) -> None:
    rows = [{"text": "a word and another, " * n} for n in range(1, 60)]
    [found] = inspect(recipe_of(tmp_path, rows, objective="language_modeling"))
    cut = found.train.cut
    assert cut.examples > 0
    assert cut.windows > cut.examples
    over = int((found.train.lengths > 128).sum())
    assert cut.examples == over
    assert found.train.examples == len(found.train.lengths) - over + cut.windows


def test_an_even_draw_stands_for_many_rows(
    tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path, sums(), model=str(tiny_run))
    [whole] = inspect(recipe)
    monkeypatch.setattr(inspection, "MOST", 10)
    [drawn] = inspect(recipe)
    assert 10 <= drawn.train.looked <= 13
    assert drawn.train.expected == whole.train.expected
    assert drawn.steps == whole.steps
    assert [e.origin for e in drawn.train.shown] == [e.origin for e in whole.train.shown]
    [everything] = inspect(recipe, everything=True)
    assert everything.train.looked == whole.train.looked


def test_a_small_budget_is_refused_as_training_refuses_it(tmp_path: Path, tiny_run: Path) -> None:
    recipe = recipe_of(tmp_path, sums(), model=str(tiny_run), training={"token_budget": 8})
    [found] = inspect(recipe)
    assert [fault.code for fault in found.refusals] == ["over-budget"]


def test_stages_are_looked_at_one_by_one(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": row["prompt"]}) + "\n" for row in sums()))
    first = {"objective": "language_modeling", "data": {"train": str(text)}}
    recipe = recipe_of(tmp_path, sums(), stages=[first, {"objective": "sft", "method": "lora"}])
    one, two = inspect(recipe)
    assert one.recipe.objective.kind == "language_modeling"
    assert two.trainable < two.total
    # The second stage's model has the tokenizer of the first one's text, and the same matrices.
    assert two.total - two.trainable == one.total
    assert one.codec.fingerprint() == two.codec.fingerprint()


@pytest.mark.parametrize(
    "lengths", [[367_817], [7] * 9, list(range(1, 400)), [5, 6, 1_000_000], [1, 1, 2], []]
)
def test_every_length_is_in_one_bar(lengths: list[int]) -> None:
    lines = list(histogram(np.sort(np.array(lengths, dtype=np.int64))))
    bars = lines[: lines.index("")] if lengths else []
    assert sum(int(line.split()[-1].replace(",", "")) for line in bars) == len(lengths)
    assert len(bars) <= 9
    assert max(map(len, lines)) <= 76
    if lengths:
        assert "█" * 40 in "".join(bars)


def test_learned_marks_are_the_targets() -> None:
    for example in (builders.document(9), builders.answered(5, 4), builders.tree()):
        marks = learned(example)
        tokens = np.concatenate([segment.tokens for segment in example.segments])
        assert sorted(tokens[marks]) == sorted(example.targets["lm"]["token"])
    assert learned(builders.answered(5, 4)).tolist() == [False] * 5 + [True] * 4


def run_inspect(path: Path, *words: str) -> None:
    assert cli.run(["inspect", str(path), *words]) == 0


def test_the_page_at_80_columns(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    recipe_of(tmp_path, sums(), model=str(tiny_run))
    (tmp_path / "r.yaml").write_text(
        f"model: {tiny_run}\ndata: {{train: rows.jsonl}}\ntraining: {{epochs: 1}}\n"
    )
    run_inspect(tmp_path / "r.yaml", "--rows", "2", "training.batch_size=4")
    out = capsys.readouterr().out
    page = out[out.index("\nData\n") :]
    long = [line for line in page.splitlines() if len(line) > 80 and str(tmp_path) not in line]
    assert long == []
    assert [line for line in page.splitlines() if line != line.rstrip()] == []
    assert page.count("[[The sum is") == 2
    assert "<|end|>]]" in page, "the end of turn is learned"
    assert "batch_size: 4" in out
    assert "schedule: cosine" in out, "defaults are written out"
    assert "Nothing is refused; to begin:" in page
    assert " %)" in page
    # The recipe as shown is a recipe.
    shown = out[out.index("Recipe\n") + 7 : out.index("\nData\n")]
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert recipes.load(again).training.batch_size == 4


def test_colours_mark_what_is_learned(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    path = tmp_path / "r.yaml"
    path.write_text(recipe_of(tmp_path, sums(), model=str(tiny_run)).to_yaml())
    run_inspect(path, "--rows", "1")
    out = capsys.readouterr().out
    assert "\x1b[1;32mThe sum is" in out
    assert "[[" not in out
