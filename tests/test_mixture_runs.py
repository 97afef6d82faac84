"""A mixture from its recipe to its report, and law 4: killed and resumed is never killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
from engine.small import fingerprint, fitted, loss_lines, parts_of, small_recipe
from engine.test_checkpoint import at_step, terminate
from tiny_runs import sums, tiny_recipe

import luthier
from luthier import cli
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.core.rundir import RunDir
from luthier.data_report import page, report
from luthier.inspection import inspect
from luthier.preparing import prepare
from luthier.show import show


def recipe(output: Path, **data: Any) -> dict[str, Any]:
    """Two sources, of which an epoch draws the smaller one more than twice."""
    values = small_recipe(output)
    rows = values["data"]["train"]
    more = [{"question": f"and of {i}?", "answer": builders.SENTENCES[i % 6]} for i in range(20)]
    entries = [{"source": rows[:5], "weight": 4}, {"source": more}]
    values["data"] = {"mixture": entries, "validation": 0.1, "check": "off", **data}
    return values


def test_law_4_a_mixture_killed_and_resumed_is_one_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve steps of five are more than two epochs; the kill comes within the second one."""
    assert fitted(recipe(tmp_path / "whole")).status == "finished"
    with monkeypatch.context() as patch:
        at_step(7, terminate, patch)
        assert fitted(recipe(tmp_path / "run")).status == "stopped"
    assert fitted(recipe(tmp_path / "run"), resumed=True).status == "finished"
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
    assert loss_lines(tmp_path / "run") == loss_lines(tmp_path / "whole")


def test_a_run_is_not_resumed_with_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(5, terminate, patch)
        fitted(recipe(tmp_path / "run"))
    other = recipe(tmp_path / "run")
    other["data"]["mixture"][0]["weight"] = 5
    with pytest.raises(RecipeError, match="changed since it began: what an epoch draws"):
        fitted(other, resumed=True)


def test_sources_drawn_as_they_are_train_as_one_list_does(tmp_path: Path) -> None:
    rows = small_recipe(tmp_path)["data"]["train"]
    ways: dict[str, dict[str, Any]] = {
        "list": {"train": rows},
        "mixture": {"mixture": [{"source": rows[:5]}, {"source": rows[5:]}]},
    }
    for name, data in ways.items():
        values = small_recipe(tmp_path / name)
        values["data"] = {**data, "validation": 0, "check": "off"}
        fitted(values)
    losses = [[e.get("loss") for e in loss_lines(tmp_path / name)] for name in ways]
    assert losses[0] == losses[1]


def test_every_step_takes_its_share_of_training_rows_alone(tmp_path: Path) -> None:
    parts = parts_of(recipe(tmp_path / "run"))
    assert parts.drawing is not None
    drawing, pools = parts.drawing
    assert parts.validation is not None
    examples = parts.train[1].examples
    assert sum(len(pool.members) for pool in pools) == len(examples)
    held = {record.origin for record in parts.validation[0].records}
    assert held
    for number, pool in enumerate(pools):
        origins = {examples.origin(int(i)) for i in pool.members}
        assert {o.source for o in origins} == {f"memory {number + 1}"}
        assert not origins & held
    rows = [len(pool.members) for pool in pools]
    assert drawing.rows == tuple(rows)
    assert drawing.draws[0] / drawing.draws[1] == pytest.approx(4 * rows[0] / rows[1], rel=0.1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over two files of different columns, and a run of it."""
    folder = tmp_path_factory.mktemp("mixture")
    rows = sums()
    asked = [{"q": r["prompt"], "a": r["response"], "of": "b"} for r in rows[40:]]
    for name, written in (("a.jsonl", rows[:40]), ("b.jsonl", asked)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in written))
    entries = [
        {"source": str(folder / "a.jsonl")},
        {
            "source": str(folder / "b.jsonl"),
            "format": "prompt_response",
            "columns": {"prompt": "q", "response": "a"},
            "limit": 20,
        },
    ]
    data = {"mixture": entries, "temperature": 2, "group": "none", "check": "off"}
    values = tiny_recipe(folder / "run", data=data)
    values["training"] |= {"max_steps": 6}
    (folder / "recipe.yaml").write_text(recipes.load(values).to_yaml())
    luthier.train(values, quiet=True)
    return folder


def test_the_run_says_what_an_epoch_was_and_measures_each_source(files: Path) -> None:
    run = RunDir(files / "run")
    epoch = json.loads(run.environment.read_text())["epoch"]
    assert epoch["by"] == "source"
    assert epoch["length"] == 54  # 40 and 20, a tenth of each held out
    assert epoch["groups"] == {
        str(files / "a.jsonl"): {"examples": 36, "drawn": 32},
        str(files / "b.jsonl"): {"examples": 18, "drawn": 22},
    }
    found = json.loads(run.evaluation.read_text())
    apart = found["sources"]
    assert {Path(name).name: one["rows"] for name, one in apart.items()} == {
        "a.jsonl": 4,
        "b.jsonl": 2,
    }
    assert found["rows"] == 6
    losses = [one["metrics"]["perplexity"]["after"] for one in apart.values()]
    assert min(losses) < found["metrics"]["perplexity"]["after"] < max(losses)
    assert f"the 4 rows of {files / 'a.jsonl'}" in run.report.read_text()


def test_inspecting_and_preparing_say_the_same(files: Path) -> None:
    loaded = recipes.load(files / "recipe.yaml", ["training.max_steps=null", "training.epochs=2"])
    [seen] = inspect(loaded)
    assert seen.drawing is not None
    assert seen.drawing.draws == (32, 22)
    assert seen.steps == (8, 4)
    [made] = prepare(loaded)
    assert "an epoch: 54 examples, drawn by source from 54" in made.said


def test_the_check_reads_each_source_in_its_own_way(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["data", "check", "--recipe", str(files / "recipe.yaml"), "--json"]
    assert cli.run(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(Path(s["name"]).name, s["split"], s["rows"]) for s in found["sources"]] == [
        ("a.jsonl", "train", 40),
        ("b.jsonl", "train", 20),
    ]


def test_a_row_of_either_source_is_shown_and_both_are_reported(files: Path) -> None:
    loaded = recipes.load(files / "recipe.yaml")
    assert show(loaded, "b.jsonl:3").origin == f"{files / 'b.jsonl'}:3"
    assert show(loaded, "a.jsonl:3").fields["turns"][0]["content"] == sums()[2]["prompt"]
    found = report(loaded, group="of")
    assert [source.rows for source in found.sources] == [40, 20]
    assert found.groups is not None
    assert "b.jsonl" in page(found)
