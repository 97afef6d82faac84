"""Students from rows to result: the teacher is asked once; what is refused."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import classifiers
import pytest
import torch
from engine.small import fingerprint
from engine.test_checkpoint import at_step, terminate
from test_classify import WORDS, rows
from tiny_runs import TINY, sums, tiny_recipe

import luthier
from luthier import cli, companions
from luthier.core import cache
from luthier.core import recipe as recipes
from luthier.core.contracts import Accompanied, FrozenColumns
from luthier.core.contracts_beside import Answered
from luthier.core.errors import RecipeError, UserError
from luthier.core.rundir import RunDir
from luthier.engine import columns
from luthier.inspection import inspect
from luthier.models.load import load as load_model
from luthier.show import label_words

STEPS = 6


class Watch:
    """Counts what companions are asked, and whether they are still there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: Counter[str] = Counter()
        self.loaded: list[Any] = []
        self.modes: list[tuple[bool, bool]] = []
        plain = load_model

        def load(*args: Any, **named: Any) -> Any:
            loaded = plain(*args, **named)
            model: Any = loaded.model
            self.loaded.append(weakref.ref(model.module))
            hidden = model.hidden

            def counted(batch: Any) -> Any:
                self.asked.update(str(origin) for origin in batch.origins)
                self.modes.append((model.module.training, torch.is_grad_enabled()))
                return hidden(batch)

            model.hidden = counted
            return loaded

        patch.setattr(companions, "load", load)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watch:
    """A cache of its own, and what the teacher is asked."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return Watch(monkeypatch)


def recipe(folder: Path, teacher: Path, name: str = "run", **objective: Any) -> dict[str, Any]:
    """A smaller model with the teacher's tokenizer learns from it, three epochs."""
    file = folder / "rows.jsonl"
    if not file.exists():
        file.write_text("".join(json.dumps(row) + "\n" for row in sums()[:20]))
    whole: Any = TINY["config"]
    shape = {**whole, "hidden_size": 32, "num_hidden_layers": 1}
    values = tiny_recipe(
        folder / name,
        model={**TINY, "config": shape, "tokenizer": str(teacher / "model")},
        objective={"kind": "distillation", "teacher": str(teacher), "top_k": 8, **objective},
        data={"train": str(file), "validation": 0.2},
    )
    values["training"] |= {"epochs": 3, "max_steps": None, "batch_size": 8, "device": "cpu"}
    values["evaluation"] |= {"samples": 1, "generate_rows": 1, "max_new_tokens": 2}
    return values


def test_the_teacher_is_asked_once_for_every_example_and_never_again(
    tiny_run: Path, tmp_path: Path, watch: Watch
) -> None:
    run = luthier.train(recipe(tmp_path, tiny_run), quiet=True)
    assert len(watch.asked) == 20
    assert set(watch.asked.values()) == {1}, "over three epochs and several validations"
    assert set(watch.modes) == {(False, False)}, "in evaluation mode, without gradient"
    gc.collect()
    assert all(model() is None for model in watch.loaded), "freed before the first step"
    asked = dict(watch.asked)
    again = luthier.train(recipe(tmp_path, tiny_run, "again"), quiet=True)
    assert dict(watch.asked) == asked, "a second run reads what the first one kept"
    assert fingerprint(again.path) == fingerprint(run.path)
    luthier.train(recipe(tmp_path, tiny_run, "softer", temperature=3.0), quiet=True)
    assert sum(watch.asked.values()) == 40, "other settings are other columns"


def test_columns_are_mapped_from_the_disk_and_belong_to_the_teachers_files(
    tiny_run: Path, tmp_path: Path, watch: Watch
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(tiny_run, teacher)
    luthier.train(recipe(tmp_path, teacher), quiet=True)
    entries = [entry for entry in cache.entries() if entry.kind == "columns"]
    assert len(entries) == 2, "one a side of the split"
    names = {path.name for entry in entries for path in entry.path.iterdir()}
    assert names == {f"lm.teacher_{name}.npy" for name in ("token", "logprob", "rest")}
    moved = tmp_path / "moved"
    teacher.rename(moved)
    luthier.train(recipe(tmp_path, moved, "elsewhere"), quiet=True)
    assert sum(watch.asked.values()) == 20, "the same files under another path"
    from safetensors.torch import load_file, save_file

    file = moved / "model" / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 5] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    luthier.train(recipe(tmp_path, moved, "other"), quiet=True)
    assert sum(watch.asked.values()) == 40, "one number of one matrix is another teacher"


def test_law_4_a_killed_student_goes_on_as_if_nothing_had_been(
    tiny_run: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = luthier.train(recipe(tmp_path, tiny_run, "whole"), quiet=True)
    asked = sum(watch.asked.values())
    with monkeypatch.context() as patch:
        at_step(2, terminate, patch)
        stopped = luthier.train(recipe(tmp_path, tiny_run), quiet=True)
    assert not stopped.finished
    kept = fingerprint(luthier.train(resume=stopped.path, quiet=True).path)
    assert kept == fingerprint(whole.path)
    assert sum(watch.asked.values()) == asked
    shutil.rmtree(cache.folder())
    with monkeypatch.context() as patch:
        at_step(2, terminate, patch)
        lost = luthier.train(recipe(tmp_path, tiny_run, "lost"), quiet=True)
    shutil.rmtree(cache.folder())
    luthier.train(resume=lost.path, quiet=True)
    assert fingerprint(lost.path) == fingerprint(whole.path), "asked anew, answered alike"


@pytest.mark.slow
def test_memory_that_runs_out_while_the_teacher_is_asked_is_asked_for_in_smaller_pieces(
    tiny_run: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = luthier.train(recipe(tmp_path, tiny_run, "whole"), quiet=True)
    shutil.rmtree(cache.folder())
    plain = columns.frozen_columns
    failed: list[int] = []

    def starving(examples: Any, *rest: Any) -> Any:
        cut = rest[2]
        if len(cut([e.size for e in examples])) < 4 and not rest[-1].is_dir():
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(examples, *rest)

    monkeypatch.setattr(companions, "TOKENS", 600)
    monkeypatch.setattr(columns, "frozen_columns", starving)
    run = luthier.train(recipe(tmp_path, tiny_run), quiet=True)
    assert failed
    assert run.finished
    losses = [[e["loss"] for e in r.events if e["kind"] == "validation"] for r in (run, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_student_comes_nearer_to_its_teacher(
    tiny_run: Path, tmp_path: Path, watch: Watch
) -> None:
    values = recipe(tmp_path, tiny_run, alpha=1.0, divergence="reverse_kl")
    values["training"] |= {"epochs": 8, "log_every": 1}
    run = luthier.train(values, quiet=True)
    terms = [e["terms"] for e in run.events if e["kind"] == "step"]
    assert set(terms[0]) == {"distillation"}
    assert terms[-1]["distillation"] < 0.8 * terms[0]["distillation"]


def test_inspect_says_what_will_be_asked(tiny_run: Path, tmp_path: Path) -> None:
    [found] = inspect(recipes.load(recipe(tmp_path, tiny_run)))
    [said] = [line for line in found.said if "teacher" in line]
    assert "2 layers" in said
    assert "run once over every example" in said
    assert not found.refusals


def test_another_vocabulary_is_refused_before_any_weight_loads(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untouched(*_args: Any, **_named: Any) -> Any:
        raise AssertionError("a weight was loaded")

    values = recipe(tmp_path, tiny_run)
    values["model"] = "builtin:nano"
    monkeypatch.setattr(companions, "load", untouched)
    monkeypatch.setattr("luthier.assemble.load", untouched)
    with pytest.raises(RecipeError, match="another vocabulary") as caught:
        luthier.train(values, quiet=True)
    assert "sequence_distillation" in str(caught.value)
    values["model"] = TINY
    with pytest.raises(RecipeError, match="other tokens") as caught:
        luthier.train(values, quiet=True)
    assert f"model.tokenizer: {tiny_run}" in str(caught.value)
    with pytest.raises(RecipeError, match="other tokens"):
        inspect(recipes.load(values))


def test_a_teacher_of_the_wrong_sort_or_too_small_is_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = recipe(tmp_path, tiny_run)
    values["objective"] = {"kind": "classifier_distillation", "teacher": str(tiny_run)}
    values["data"] = {"train": rows()}
    with pytest.raises(RecipeError, match="is a language model"):
        luthier.train(values, quiet=True)
    values = recipe(tmp_path, tiny_run)
    monkeypatch.setattr(companions, "free_memory", lambda _device: 1000)
    with pytest.raises(UserError, match="are free on cpu"):
        luthier.train(values, quiet=True)
    [found] = inspect(recipes.load(values))
    assert any("are free on cpu" in fault.message for fault in found.refusals)
    values["objective"]["teacher"] = str(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="no model folder"):
        luthier.train(values, quiet=True)


def test_settings_without_effect_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'beta' has no meaning"):
        recipes.load(recipe(tmp_path, tiny_run, beta=0.2))
    with pytest.raises(RecipeError, match="teacher"):
        recipes.load({**recipe(tmp_path, tiny_run), "objective": "distillation"})


# Sequences: the teacher's own answers.


def test_a_student_learns_the_teachers_answers_whatever_its_tokens(
    tiny_run: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luthier import answers

    loads: list[str] = []
    plain = load_model

    def load(name: str, **named: Any) -> Any:
        loads.append(name)
        return plain(name, **named)

    monkeypatch.setattr(answers, "load", load)
    monkeypatch.setattr(answers, "PIECE", 7)
    values = recipe(tmp_path, tiny_run)
    values["objective"] = {
        "kind": "sequence_distillation", "teacher": str(tiny_run), "max_new_tokens": 12,
    }  # fmt: skip
    values["model"] = TINY  # tokens of its own
    run = luthier.train(values, quiet=True)
    assert run.finished
    assert loads == [str(tiny_run)]
    pieces = [entry for entry in cache.entries() if entry.kind == "answers"]
    assert len(pieces) == 3, "16 prompts in pieces of 7"
    said = [t for e in pieces for t in json.loads((e.path / "answers.json").read_text())]
    assert len(said) == 16
    from luthier.chat import Chat

    row = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[1])
    assert Chat.open(str(tiny_run)).answer(row["prompt"], max_new_tokens=12) in said
    luthier.train({**values, "output": str(tmp_path / "again")}, quiet=True)
    assert loads == [str(tiny_run)], "asked once"
    assert any(tmp_path.glob("cache/answers/*"))
    [found] = inspect(recipes.load({**values, "output": str(tmp_path / "other")}))
    assert any("will answer the training prompts" in line for line in found.said)


def test_promises(tiny_run: Path, tmp_path: Path) -> None:
    from luthier.core import kinds

    config = recipes.load(recipe(tmp_path, tiny_run)).objective
    objective = kinds.build("objectives", config)
    assert isinstance(objective, Accompanied)
    assert isinstance(objective, FrozenColumns)
    assert not isinstance(objective, Answered)


# Classifiers.


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of four layers that knows its three classes."""
    folder = tmp_path_factory.mktemp("expert")
    base = classifiers.saved(folder / "base", num_hidden_layers=4)
    values = classifier(base, folder / "run", rows())
    values["objective"] = {"kind": "classification", "pooling": "mean"}
    return luthier.train(values, quiet=True).path


def classifier(model: Any, output: Path, train: Any, **objective: Any) -> dict[str, Any]:
    return {
        "model": model if isinstance(model, dict) else str(model),
        "objective": {"kind": "classifier_distillation", **objective},
        "method": "full",
        "data": {"train": train, "validation": 0.25},
        "training": {
            "epochs": 8, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32",
            "threads": 1, "trackers": [], "device": "cpu",
        },
        "evaluation": {"samples": 1, "resamples": 100},
        "output": str(output),
    }  # fmt: skip


def test_half_the_layers_learn_what_the_whole_classifier_says(
    expert: Path, tmp_path: Path, watch: Watch
) -> None:
    model = {"name": str(expert), "layers": 2}
    run = luthier.train(
        classifier(model, tmp_path / "run", rows(), teacher=str(expert)), quiet=True
    )
    assert set(watch.asked.values()) == {1}
    assert run.metrics["accuracy"]["after"] > 0.6
    said = json.loads((run.path / "model" / "config.json").read_text())
    assert said["num_hidden_layers"] == 2
    assert run.evaluation["classes"]["names"] == list(WORDS)
    from luthier.classify import Classifier

    assert Classifier.open(str(run.path)).predict(["joy joy"])[0].label in WORDS


def test_texts_without_a_label_teach_what_the_teacher_says(
    expert: Path, tmp_path: Path, watch: Watch
) -> None:
    labelled, bare = tmp_path / "few.jsonl", tmp_path / "more.jsonl"
    # Three rows with a label, one a class: all else comes from the teacher.
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows()[::18]))
    bare.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows()))
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps(row) + "\n" for row in rows()[5::9]))
    values = classifier(
        {"name": str(expert), "layers": [0, 3]},
        tmp_path / "run",
        [str(labelled), str(bare)],
        teacher=str(expert),
    )
    values["data"].update(validation=[str(held), str(bare)], check="warn")
    [found] = inspect(recipes.load(values), rows=60)
    said = {
        label_words(e.targets["classification"]["label"][0], tuple(WORDS))
        for e in found.train.shown
    }
    assert said == {*WORDS, "(unknown)"}
    run = luthier.train(values, quiet=True)
    assert run.metrics["accuracy"]["rows"] == 6, "only rows with a label are judged"
    assert run.metrics["accuracy"]["after"] > 0.6
    step = [e for e in run.events if e["kind"] == "step"][-1]
    assert set(step["terms"]) == {"distillation", "classification"}
    values["data"]["train"] = str(bare)
    with pytest.raises(UserError, match="no row has a label"):
        luthier.train({**values, "output": str(tmp_path / "none")}, quiet=True)


def test_other_classes_than_the_teachers_are_refused(expert: Path, tmp_path: Path) -> None:
    other = [{**row, "label": row["label"].upper()} for row in rows()]
    with pytest.raises(RecipeError, match="tells 3 classes apart"):
        luthier.train(
            classifier(classifiers.saved(tmp_path / "base"), tmp_path / "run", other,
                       teacher=str(expert)), quiet=True,
        )  # fmt: skip
    numbers = [{"text": row["text"], "label": float(n)} for n, row in enumerate(rows())]
    with pytest.raises(UserError, match="numbers"):
        luthier.train(
            classifier(expert, tmp_path / "run", numbers, teacher=str(expert)), quiet=True
        )


def test_an_adapter_on_some_layers_is_refused(expert: Path, tmp_path: Path) -> None:
    values = classifier(
        {"name": str(expert), "layers": 2}, tmp_path / "run", rows(), teacher=str(expert)
    )
    values["method"] = "lora"
    [found] = inspect(recipes.load(values))
    assert any("nothing without its base" in fault.message for fault in found.refusals)
    with pytest.raises(RecipeError, match="an adapter is nothing without its base"):
        luthier.train(values, quiet=True)


def test_other_layers_are_another_run(expert: Path, tmp_path: Path) -> None:
    model = {"name": str(expert), "layers": 2}
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    values = classifier(model, tmp_path / "run", str(file), teacher=str(expert))
    run = luthier.train(values, quiet=True)
    with pytest.raises(RecipeError, match=r"model\.layers"):
        luthier.train(
            recipes.load(run.folder.recipe, ["model.layers=[0,1]", "training.epochs=9"]),
            resume=run.path,
            quiet=True,
        )


def test_the_command_line_knows_of_it(tiny_run: Path, tmp_path: Path, capsys: Any) -> None:
    import yaml

    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path, tiny_run)))
    assert cli.run(["inspect", str(path)]) == 0
    assert "run once over every example" in " ".join(capsys.readouterr().out.split())
    assert not RunDir(tmp_path / "run").path.exists()
