"""Every ready recipe runs for two steps, on the data that it names or on rows like them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import classifiers
import encoders
import pytest
import torch
import yaml

import luthier
from luthier.core.rundir import RunDir, read_lines
from luthier.demo import preferences, sentences, tasks
from luthier.demo.support import write
from luthier.ready import find_recipe, names

QUICK = [
    "training.max_steps=2",
    "training.batch_size=2",
    "training.precision=float32",
    "evaluation.rows=2",
    "evaluation.samples=1",
    "evaluation.generate_rows=1",
    "evaluation.max_new_tokens=4",
    "evaluation.resamples=100",
]
FEW = "data.limit=40"
#: As many as a pretrained encoder has.
POSITIONS = 512


def _few(_folder: Path) -> list[str]:
    return [FEW]


def _demo(folder: Path) -> list[str]:
    files = write(folder)
    return [FEW, f"data.train={files['train']}", f"data.validation={files['test']}"]


def _reward(folder: Path) -> list[str]:
    files = preferences.write(folder)
    return [FEW, f"data.train={files['train']}", f"data.validation={files['test']}"]


def _support(folder: Path) -> list[str]:
    return [FEW, f"data.train={write(folder)['train']}"]


def _intents(folder: Path) -> list[str]:
    """All rows: they stand class by class, and the first ones of two files share no classes."""
    model = classifiers.saved(folder, max_position_embeddings=POSITIONS)
    return [f"model={model}", "training.evaluate_every=2"]


def _encoder(folder: Path) -> list[str]:
    """All rows, as the first ones of two files share no classes."""
    return [f"model={encoders.saved(folder, max_position_embeddings=POSITIONS)}"]


def _sentiment(folder: Path) -> list[str]:
    """Reviews as the hub's, every fifth of them longer than the model reads."""
    model = classifiers.saved(folder / "model", "distilbert", max_position_embeddings=POSITIONS)
    made = [f"model={model}"]
    for part, said in (
        ("train", "so it goes, on and on, "),
        ("validation", "now and then, as ever, "),
    ):
        reviews = [
            {"text": said * (60 if n % 5 == 0 else 2) + word, "label": label}
            for n in range(15)
            for label, word in enumerate(("and it was dull", "and it was a joy"))
        ]
        lines = "".join(json.dumps(review) + "\n" for review in reviews)
        (folder / f"{part}.jsonl").write_text(lines, encoding="utf-8")
        made.append(f"data.{part}={folder / part}.jsonl")
    return made


def _student(folder: Path) -> list[str]:
    """A teacher that knows the rows' 77 classes, trained for a step."""
    base = classifiers.saved(
        folder / "base", num_hidden_layers=6, max_position_embeddings=POSITIONS
    )
    recipe = yaml.safe_load(find_recipe("student").read_text(encoding="utf-8"))
    taught = {
        **{name: recipe[name] for name in ("data", "method")},
        "model": str(base),
        "objective": {"kind": "classification", "pooling": "mean"},
    }
    teacher = folder / "teacher"
    luthier.train(taught, [*QUICK, "training.evaluate_every=2", f"output={teacher}"], quiet=True)
    made = [f"model.name={teacher}", f"objective.teacher={teacher}"]
    return [*made, "training.evaluate_every=2"]


def _embeddings(folder: Path) -> list[str]:
    model = classifiers.saved(folder, max_position_embeddings=POSITIONS)
    return [f"model={model}", FEW]


def _repurpose(folder: Path) -> list[str]:
    """All rows, and a bound on the iterations."""
    model = classifiers.saved(folder, max_position_embeddings=POSITIONS)
    return [f"model={model}", "method.iterations=3"]


def _gpt2(folder: Path) -> list[str]:
    """A tiny GPT-2 without a chat template."""
    tokenizer = builders.tokenizer()
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": 512}
    builders.tiny("gpt2", **sizes).save_pretrained(folder / "model")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder / "model")
    return [*_support(folder), f"model={folder / 'model'}"]


def _papers(folder: Path) -> list[str]:
    """A tiny Phi, whose head has a bias and whose attention ends in a matrix named dense."""
    tokenizer = builders.tokenizer()
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": 2048}
    builders.tiny("phi", **sizes).save_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return [FEW, f"model={folder}"]


def _sums(folder: Path) -> list[str]:
    """Sums as the package makes them; short prompts leave room for short answers."""
    files = tasks.write(folder)
    return [
        FEW,
        f"data.train={files['arithmetic-train']}",
        f"data.validation={files['arithmetic-test']}",
    ]


def _tone(folder: Path) -> list[str]:
    files = sentences.write(folder)
    return [FEW, f"data.train={files['train']}", f"data.validation={files['test']}"]


def _pleased(folder: Path) -> list[str]:
    """A judge that has learned nothing: its classes are what counts."""
    labels = dict(enumerate(sentences.LABELS))
    judge = classifiers.own("llama", max_position_embeddings=POSITIONS)
    judge.config.id2label, judge.config.label2id = labels, {v: k for k, v in labels.items()}
    judge.config.num_labels = 2
    judge.score = torch.nn.Linear(judge.config.hidden_size, 2, bias=False)
    judge.save_pretrained(folder / "tone")
    builders.tokenizer().save_pretrained(folder / "tone")
    files = sentences.write(folder)
    recipe = yaml.safe_load(find_recipe("ppo-sentiment").read_text(encoding="utf-8"))
    first, second = recipe["stages"]
    first["data"]["train"] = str(files["train"])
    second["data"]["train"] = str(files["beginnings"])
    for stage in (first, second):
        stage["training"]["max_steps"] = 2
    second["objective"]["rewards"][0]["model"] = str(folder / "tone")
    return [FEW, f"stages={json.dumps(recipe['stages'])}"]


#: What stands in for a model or data that are not here; a recipe with neither takes a few rows.
STAND_INS: dict[str, Callable[[Path], list[str]]] = {
    "demo": _demo,
    "reward": _reward,
    "support": _support,
    "intents": _intents,
    "assistant-understanding": _encoder,
    "entities": _encoder,
    "masked-lm": _encoder,
    "intents-adapter": _intents,
    "intents-layers": _intents,
    "sentiment": _sentiment,
    "student": _student,
    "embeddings": _embeddings,
    "repurpose": _repurpose,
    "papers": _papers,
    "gpt2-support": _gpt2,
    "grpo-arithmetic": _sums,
    "tone": _tone,
    "ppo-sentiment": _pleased,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_ready_recipe_runs_two_steps(name: str, tmp_path: Path) -> None:
    recipe: dict[str, Any] = yaml.safe_load(find_recipe(name).read_text(encoding="utf-8"))
    if "LUTHIER_DATA" in json.dumps(recipe) and "LUTHIER_DATA" not in os.environ:
        pytest.skip("LUTHIER_DATA is not set")
    stand_in = STAND_INS.get(name, _few)
    overrides = [*QUICK, *stand_in(tmp_path / "data"), f"output={tmp_path / 'run'}"]
    if "stages" in recipe:
        stages = [
            {**stage, "training": {**stage.get("training", {}), "max_steps": 2}}
            for stage in recipe["stages"]
        ]
        recipe["stages"] = stages
    if "architecture" in recipe["model"]:  # from scratch
        overrides += ["data.max_length=64", "training.compile=false"]
    run = luthier.train(recipe, overrides, quiet=True)
    assert run.finished
    assert RunDir(run.path).report.is_file()
    if name == "papers":
        assert set(run.metrics) >= {"rouge_1", "rouge_2", "rouge_l", "perplexity"}
        [first, *_] = read_lines(run.folder.samples)
        assert first["reference"]
    prompts = recipe.get("evaluation", {}).get("prompts", [])
    shown = list(read_lines(run.folder.samples))[: len(prompts)]
    assert [sample["prompt"] for sample in shown] == prompts
    if "architecture" not in recipe["model"]:  # one from scratch may have nothing to say yet
        assert all(sample["before"] and sample["after"] for sample in shown)
    cut = name == "sentiment"
    counts = json.loads(run.folder.environment.read_text(encoding="utf-8")).get("data", {})
    assert not cut or counts["train"]["cut"]["examples"] > 5
