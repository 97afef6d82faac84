"""Several tasks on one trunk, from rows to a model that answers each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import pytest
import test_tagging
import torch
from engine.small import fingerprint, fitted, loss_lines, parts_of
from engine.test_checkpoint import at_step, terminate

import luthier
from luthier import cli
from luthier.checking import check_recipe
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError, UserError
from luthier.core.rundir import RunDir
from luthier.export import export
from luthier.fit import fit
from luthier.inspection import inspect
from luthier.many import Tasks
from luthier.models.load import load
from luthier.show import show

SUBJECTS = ("anna", "bob", "mary jane", "the captain", "a neighbour")
PLEASURES = {"joy": ("sang", "danced", "laughed"), "grief": ("wept", "sighed", "mourned")}


def feelings() -> list[dict[str, Any]]:
    return [
        {"text": f"{who} {did} at {number}", "label": label}
        for number in range(4)
        for label, words in PLEASURES.items()
        for did in words
        for who in SUBJECTS[:3]
    ]


def places() -> list[dict[str, Any]]:
    """The tagger's sentences once more, as a second classification with other labels."""
    made = []
    for row in test_tagging.rows():
        text = " ".join(row["tokens"])
        made.append({"text": text, "label": text.split(" at ")[0].rpartition("saw ")[2]})
    return made


TASKS = {"feeling": "classification", "entities": "token_classification"}
SOURCES = {"feeling": feelings, "entities": test_tagging.rows, "place": places}


def recipe(
    folder: Path, method: Any = "full", name: str = "bert", tasks: Any = None, **changes: Any
) -> dict[str, Any]:
    tasks = dict(tasks or TASKS)
    family = "byte_level" if name == "roberta" else "wordpiece"
    mixture = [{"source": SOURCES.get(task, feelings)(), "task": task} for task in tasks]
    return {
        "model": str(encoders.saved(folder / "base", name, family)),
        "objective": {"kind": "several", "tasks": tasks},
        "method": method,
        "data": {"mixture": mixture, "validation": 0.25},
        "training": {
            "epochs": {"full": 14, "head": 60}.get(method, 50),
            "batch_size": 12,
            "learning_rate": {"full": 3e-3, "head": 5e-2}.get(method, 5e-3),
            "precision": "float32",
            "threads": 1,
            "trackers": [],
        },
        "evaluation": {"samples": 3, "resamples": 100, "prompts": ["anna saw new york at 1"]},
        "output": str(folder / "run"),
        **changes,
    }


def _head(parts: Any) -> Any:
    return parts.loaded.head


def outputs(run: Any) -> list[dict[str, str]]:
    found = Tasks.open(str(run)).predict(["anna saw rome at 2", "bob wept at 1"])
    return [{name: str(said) for name, said in each.items()} for each in found]


@pytest.mark.parametrize(
    ("method", "name"),
    [("full", "bert"), ("full", "modernbert"), ("lora", "distilbert"), ("head", "roberta")],
)
def test_rows_of_two_tasks_become_a_model_that_answers_both(
    method: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = luthier.train(recipe(tmp_path, method, name), quiet=True)
    least = 0.0 if method == "head" else 0.9  # a random trunk tells a head little
    for metric in ("feeling.accuracy", "entities.token_accuracy"):
        figure = run.metrics[metric]
        assert figure["after"] >= max(least, figure["before"]), metric
    assert run.metrics["entities.token_accuracy"]["difference"] > 0.1
    found = run.evaluation["tasks"]
    assert found["feeling"]["classes"]["names"] == ["grief", "joy"]
    assert {one["name"] for one in found["entities"]["entities"]["per_type"]} == {"LOC", "PER"}
    assert found["feeling"]["rows"] + found["entities"]["rows"] == run.evaluation["rows"]
    kept = run.folder.path / "recipe.yaml"
    assert "grief" in kept.read_text()
    assert "B-PER" in kept.read_text()
    first = run.samples[0]
    assert first["prompt"] == "anna saw new york at 1"
    assert first["after"].startswith("feeling: ")
    assert "\nentities: " in first["after"]
    page = run.folder.report.read_text()
    assert "feeling: Accuracy" in page
    assert "Task “entities”" in page
    capsys.readouterr()
    assert cli.run(["generate", str(run.path), "--prompt", "bob wept at 3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["feeling", "entities"]
    assert cli.run(["chat", str(run.path)]) != 0


@pytest.mark.parametrize(
    ("method", "name"), [("full", "bert"), ("full", "modernbert"), ("lora", "distilbert")]
)
@pytest.mark.parametrize("task", ["feeling", "entities"])
def test_one_task_alone_is_that_objective_by_itself_step_by_step(
    task: str, method: str, name: str, tmp_path: Path
) -> None:
    values = recipe(tmp_path, method, name, tasks={task: TASKS[task]})
    values["training"] |= {"max_steps": 6, "log_every": 1, "token_budget": 90}
    values["data"] |= {"validation": 0, "check": "off"}
    fitted(values, wide=True)
    rows = values["data"]["mixture"][0]["source"]
    single = {**values, "objective": TASKS[task], "output": str(tmp_path / "single")}
    single["data"] = {"mixture": [{"source": rows}], "validation": 0, "check": "off"}
    fitted(single, wide=True)
    among, alone = (
        [event["loss"] for event in loss_lines(tmp_path / run) if "loss" in event]
        for run in ("run", "single")
    )
    assert len(among) == 6
    assert among == pytest.approx(alone, abs=1e-12)


def test_law_4_killed_and_resumed_is_one_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values(output: str) -> dict[str, Any]:
        made = recipe(tmp_path, tasks={**TASKS, "place": "classification"})
        made["training"] |= {"max_steps": 12, "evaluate_every": 5, "log_every": 4}
        return {**made, "output": str(tmp_path / output)}

    assert fitted(values("whole")).status == "finished"
    with monkeypatch.context() as patch:
        at_step(7, terminate, patch)
        assert fitted(values("run")).status == "stopped"
    assert fitted(values("run"), resumed=True).status == "finished"
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
    assert loss_lines(tmp_path / "run") == loss_lines(tmp_path / "whole")


@pytest.mark.parametrize("method", ["full", "lora", "head", "freeze", "adapter"])
def test_what_is_saved_answers_as_what_was_trained_and_can_be_trained_on(
    method: str, tmp_path: Path
) -> None:
    values = recipe(tmp_path, method, tasks={**TASKS, "place": "classification"})
    values["training"] |= {"max_steps": 4}
    values["evaluation"]["before"] = False
    run = luthier.train(values, quiet=True)
    said = outputs(run.path)
    assert set(said[0]) == {"feeling", "entities", "place"}
    if method != "adapter":  # no matrix computes what a bottleneck does
        made = export(str(run.path), "merged", tmp_path / "merged", say=lambda _line: None)
        assert made.difference < 1e-4
        assert outputs(made.folder) == said
    more = {**values, "model": str(run.path), "output": str(tmp_path / "more")}
    parts = parts_of(more)
    assert method in ("lora", "adapter") or "fresh" not in "".join(parts.loaded.said)
    before: Any = load(str(run.path)).model
    for part in before.head.parts:
        for one, other in zip(
            before.base.head_of(part.name).parameters(),
            parts.loaded.model.base.head_of(part.name).parameters(),
            strict=True,
        ):
            assert torch.equal(one, other)


def test_a_file_may_feed_two_tasks(tmp_path: Path) -> None:
    lines = [{**row, "who": row["text"].split()[0]} for row in feelings()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"source": str(tmp_path / "rows.jsonl")}
    values = recipe(tmp_path, tasks={"feeling": "classification", "who": "classification"})
    values["data"]["mixture"] = [
        {**source, "task": "feeling"},
        {**source, "task": "who", "columns": {"label": "who"}, "format": "label"},
    ]
    values["data"]["check"] = "refuse"
    parts = parts_of(values)
    assert [part.labels for part in _head(parts).parts] == [
        ("grief", "joy"),
        ("anna", "bob", "mary"),
    ]
    assert parts.validation is not None
    train, held = (
        {r.origin.line for r in side[0].records} for side in (parts.train, parts.validation)
    )
    assert not train & held, "a text is on one side for both tasks"
    seen = show(recipes.load(values), "rows.jsonl (task who):3")
    assert seen.fields["label"] == lines[2]["who"]
    assert len(check_recipe(recipes.load(values))) == 2
    [inspected] = inspect(recipes.load(values))
    assert inspected.train.examples > 0
    assert not inspected.refusals


def test_a_long_sentence_is_divided_and_a_long_text_refused(tmp_path: Path) -> None:
    values = recipe(tmp_path)
    values["data"]["max_length"] = 16
    long = {"tokens": ["anna", "saw"] * 10, "tags": ["B-PER", "O"] * 10}
    values["data"]["mixture"][1]["source"].append(long)
    values["data"]["validation"] = 0
    assert parts_of(values).train[1].counts["cut"]["windows"] > 1
    values["data"]["mixture"][0]["source"].append({"text": "anna sang " * 10, "label": "joy"})
    with pytest.raises(UserError, match=r"\(task feeling\):73: this example has 62 tokens"):
        parts_of(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data.mixture.0.task": "feelin"}, "no task 'feelin', did you mean 'feeling'"),
        ({"data.mixture.0.task": None}, "data.mixture.0.task: missing"),
        ({"objective": "classification"}, "the objective 'classification' has no tasks"),
        ({"objective.tasks.third": "masked_lm"}, "objective.tasks.third: no source"),
        ({"objective.tasks.feeling": "distillation"}, "teacher|stands among no other"),
        ({"objective.tasks.feeling": "embedding"}, "stands among no other tasks"),
        ({"objective.weights": {"feelin": 2}}, "did you mean 'feeling'"),
        ({"objective.tasks.feeling": "clasification"}, "did you mean 'classification'"),
        ({"data.validation": "rows.jsonl"}, "rows of a file of their own name no task"),
        ({"data.mixture.0.format": "tagged"}, "learns from Labelled"),
        ({"retain": "old.jsonl"}, "old rows name no task"),
        ({"method": {"kind": "head", "solver": "lbfgs"}}, "one head at a time"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_go_together_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    values = json.loads(json.dumps({**recipe(tmp_path), "model": "builtin:nano"}))
    for path, value in change.items():
        at: Any = values
        *parents, last = path.split(".")
        for name in parents:
            at = at.setdefault(name, {}) if isinstance(at, dict) else at[int(name)]
        at[last] = value
    with pytest.raises(RecipeError, match=said):
        recipes.load(values)


@pytest.mark.parametrize(
    ("model", "task", "said"),
    [("encoder", "language_modeling", "is an encoder"), ("nano", "masked_lm", "has no masked")],
)
def test_a_head_that_the_model_cannot_have_is_refused_before_weights_load(
    model: str, task: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = recipe(tmp_path)
    values["objective"]["tasks"]["text"] = task
    texts = [{"text": f"{row['text']}, and then home"} for row in feelings()]
    values["data"]["mixture"].append({"source": texts, "task": "text", "format": "text"})
    values["data"]["check"] = "off"
    if model == "nano":
        values["model"] = "builtin:nano"
    monkeypatch.setattr("safetensors.safe_open", None)
    with pytest.raises(UserError, match=said):
        parts_of(values)


@pytest.mark.parametrize("model", ["encoder", "decoder"])
def test_a_vocabularys_head_may_be_one_of_them(model: str, tmp_path: Path) -> None:
    kind = "masked_lm" if model == "encoder" else "language_modeling"
    tasks = {"feeling": "classification", "text": kind}
    values = recipe(tmp_path)
    values["objective"] = {"kind": "several", "tasks": tasks, "weights": {"text": 0.05}}
    texts = [{"text": f"{row['text']}, and then home"} for row in feelings()]
    values["data"]["mixture"][1] = {"source": texts, "task": "text", "format": "text"}
    values["data"]["check"] = "off"
    if model == "decoder":
        values["model"] = "builtin:nano"
        values["training"]["learning_rate"] = 5e-4
    run = luthier.train(values, quiet=True)
    assert run.metrics["feeling.accuracy"]["after"] > run.metrics["feeling.accuracy"]["before"]
    assert run.metrics["text.perplexity"]["after"] < run.metrics["text.perplexity"]["before"]
    assert outputs(run.path)[1].keys() == {"feeling"}
    made = export(str(run.path), "merged", tmp_path / "merged", say=lambda _line: None)
    assert made.difference < 1e-3


def test_law_6_heads_on_kept_states_learn_as_on_computed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one task are pooled and of the other read token by token: both from one entry."""

    def said_and_lost(output: str) -> tuple[str, list[float]]:
        monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / f"cache-{output}"))
        made = recipe(tmp_path, "head", "roberta", output=str(tmp_path / output))
        made["training"] |= {"epochs": 3, "log_every": 1, "evaluate_every": 4}
        lines: list[str] = []
        folder = RunDir(tmp_path / output)
        folder.path.mkdir()
        fit(parts_of(made), folder, {"threads": 1}, lines.append, quiet=True, resumed=False)
        return "\n".join(lines), [e["loss"] for e in loss_lines(folder.path) if "loss" in e]

    said, kept = said_and_lost("kept")
    assert "computed once and kept" in said
    monkeypatch.setenv("LUTHIER_CACHE_BYTES", "1")
    said, computed = said_and_lost("computed")
    assert "computed at every step" in said
    assert len(kept) > 10
    assert kept == pytest.approx(computed, abs=1e-6)
