"""Runs with bottleneck adapters: trained, measured, asked, continued, and not merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import classifiers
import pytest
import torch
import yaml
from builders import gap
from tiny_runs import sums, tiny_recipe

import luthier
from luthier.chat import Chat
from luthier.classify import Classifier
from luthier.core import recipe as recipes
from luthier.core.errors import UserError
from luthier.core.rundir import read_lines, write_lines
from luthier.export import export
from luthier.inspection import inspect
from luthier.models.load import load
from luthier.ops.bottleneck import CONFIG, WEIGHTS, Adapters

ADAPTER = {"kind": "adapter", "reduction_factor": 4}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A base, and an adapter of it."""
    folder = tmp_path_factory.mktemp("spoken")
    base = luthier.train(tiny_recipe(folder / "base"), quiet=True)
    recipe = tiny_recipe(folder / "run", model=str(base.path / "model"), method=ADAPTER)
    recipe["training"]["learning_rate"] = 2e-2
    return base, luthier.train(recipe, quiet=True)


@pytest.fixture(scope="module")
def classed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sentence encoder's adapter with a head of its own."""
    folder = tmp_path_factory.mktemp("classed")
    for part, word in (("train", "and"), ("test", "but")):
        rows = [
            {"text": f"{text} {word} {i} times", "label": classifiers.NAMES[i % 3]}
            for i, text in enumerate(classifiers.TEXTS * 4)
        ]
        write_lines(folder / f"{part}.jsonl", rows)
    recipe = tiny_recipe(
        folder / "run",
        model=str(classifiers.saved(folder / "bert")),
        method=ADAPTER,
        objective={"kind": "classification", "pooling": "mean"},
        data={"train": str(folder / "train.jsonl"), "validation": str(folder / "test.jsonl")},
    )
    return luthier.train(recipe, quiet=True)


def test_a_run_keeps_the_adapter_alone_and_measures_before_and_after(spoken: Any) -> None:
    _, run = spoken
    names = {p.name for p in (run.path / "model").iterdir()}
    assert {CONFIG, WEIGHTS, "tokenizer.json", "luthier.json"} <= names
    assert not names & {"model.safetensors", "config.json", "adapter_config.json"}
    figures = json.loads(run.folder.evaluation.read_text())["metrics"]["perplexity"]
    assert figures["after"] < figures["before"]
    said = json.loads(run.folder.environment.read_text())["parameters"]
    assert 0 < said["trainable"] < 0.2 * said["total"]


def test_a_run_is_loaded_with_and_without_its_adapter(spoken: Any) -> None:
    base, run = spoken
    tokens = torch.arange(5, 25)[None]
    start, with_it, without = (
        load(str(name), **more).model
        for name, more in ((base.path, {}), (run.path, {}), (run.path, {"adapter": False}))
    )
    with torch.no_grad():
        one, two, three = (
            m.module.eval()(input_ids=tokens).logits for m in (start, with_it, without)
        )
    assert torch.equal(one, three)
    assert gap(one, two) > 1e-3
    Adapters.of(with_it.module).deactivate()
    with torch.no_grad():
        assert torch.equal(with_it.module(input_ids=tokens).logits, one)


def test_it_talks_and_it_classifies(spoken: Any, classed: Any) -> None:
    question = "What is 2 plus 3?"
    said = Chat.open(str(spoken[1].path)).answer(question, max_new_tokens=8)
    assert said == Chat.open(str(spoken[1].path / "model")).answer(question, max_new_tokens=8)
    [found] = Classifier.open(str(classed.path)).predict([classifiers.TEXTS[0]])
    assert set(found.probabilities) == set(classifiers.NAMES)
    after = json.loads(classed.folder.evaluation.read_text())["metrics"]["accuracy"]["after"]
    own = load(str(classed.path)).model
    assert own.labels == classifiers.NAMES  # type: ignore[union-attr]
    assert own.pooling == "mean"  # type: ignore[union-attr]
    texts = list(read_lines(classed.path.parent / "test.jsonl"))
    made = Classifier.open(str(classed.path)).predict([row["text"] for row in texts])
    right = sum(p.label == row["label"] for p, row in zip(made, texts, strict=True))
    assert right / len(texts) == pytest.approx(after)


@pytest.mark.parametrize("kind", ["spoken", "classed"])
def test_a_run_is_continued(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(kind)
    run = found[1] if isinstance(found, tuple) else found
    plain = yaml.safe_load(run.folder.recipe.read_text())
    recipe = {key: plain[key] for key in ("objective", "method", "training", "evaluation")}
    recipe |= {"model": str(run.path), "output": str(tmp_path / "on")}
    recipe["data"] = {"train": sums()} if kind == "spoken" else plain["data"]
    recipe["training"]["max_steps"] = 2
    again = luthier.train(recipe, quiet=True)
    assert again.finished
    assert (again.path / "model" / WEIGHTS).is_file()
    seen = inspect(recipes.load(recipe))
    assert 0 < seen[0].trainable < seen[0].total
    for method, words in (
        ({**ADAPTER, "placement": "houlsby"}, "placement pfeiffer"),
        ("full", "nonlinearity"),
        ("lora", "nonlinearity"),
    ):
        with pytest.raises(UserError, match=words):
            luthier.train({**recipe, "method": method, "output": str(tmp_path / "no")}, quiet=True)


def test_an_export_that_merges_is_refused(spoken: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nonlinearity"):
        export(spoken[1].path, "merged", tmp_path / "merged", say=lambda line: None)
    assert not (tmp_path / "merged").exists()
