"""Classification from rows to an answering model, on tiny encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import classifiers
import pytest
import torch

import luthier
from luthier import cli
from luthier.classify import Classifier
from luthier.core.errors import UserError
from luthier.export import export

WORDS = {"bad": "dull", "fair": "fine", "good": "joy"}


def rows() -> list[dict[str, Any]]:
    return [
        {"text": f"{word} {place} {word} {number}", "label": name}
        for name, word in WORDS.items()
        for number in range(9)
        for place in ("at first", "in the end")
    ]


def recipe(tmp_path: Path, method: Any, name: str = "bert", **changes: Any) -> dict[str, Any]:
    return {
        "model": str(classifiers.saved(tmp_path / "base", name)),
        "objective": {"kind": "classification", "pooling": "mean"},
        "method": method,
        "data": {"train": rows(), "validation": 0.25},
        "training": {
            "epochs": {"head": 30, "lora": 20}.get(method, 10),
            "batch_size": 8,
            "learning_rate": {"head": 5e-2, "lora": 5e-3}.get(method, 3e-3),
            "precision": "float32",
            "threads": 1,
            "trackers": [],
        },
        "evaluation": {"samples": 3, "resamples": 100, "prompts": ["it was a joy", "dull dull"]},
        "output": str(tmp_path / "run"),
        **changes,
    }


@pytest.mark.parametrize(
    ("method", "name"),
    [("full", "bert"), ("lora", "distilbert"), ("lora", "roberta"), ("head", "modernbert")],
)
def test_rows_become_a_model_that_knows_its_classes(
    method: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = luthier.train(recipe(tmp_path, method, name), quiet=True)
    assert run.metrics["accuracy"]["after"] > max(0.6, run.metrics["accuracy"]["before"])
    said = run.evaluation["classes"]
    assert said["names"] == ["bad", "fair", "good"]
    assert said["majority"]["accuracy"] == pytest.approx(1 / 3, abs=0.1)
    assert run.samples[0]["prompt"] == "it was a joy"
    assert run.samples[0]["reference"] is None
    assert 0 <= run.samples[0]["after_probability"] <= 1
    assert len(run.samples) == 2 + 3
    [first, second] = Classifier.open(str(run.path)).predict(["dull dull", "a joy"])
    assert first.label == run.samples[1]["after"]
    assert sum(second.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert set(second.probabilities) == set(WORDS)
    assert cli.run(["generate", str(run.path), "--prompt", "dull dull"]) == 0
    shown = capsys.readouterr().out
    assert first.label in shown.splitlines()[0]
    assert "%" in shown.splitlines()[0]
    lines = (run.path / "scores.jsonl").read_text().splitlines()
    assert {json.loads(line)["model"] for line in lines} == {"before", "after"}
    done = export(run.path, "merged", tmp_path / "merged", say=lambda _line: None)
    assert done.difference < 1e-4
    again = Classifier.open(str(tmp_path / "merged")).predict(["dull dull"])[0]
    assert again.probabilities == pytest.approx(first.probabilities, abs=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("pooling", ["mean", "auto"])
def test_the_cards_lines_load_the_model(
    method: str, pooling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {
        "objective": {"kind": "classification", "pooling": pooling},
        "training": {"max_steps": 3, "trackers": []},
    }
    run = luthier.train(recipe(tmp_path, method) | made, quiet=True)
    card = (run.path / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace('"a text"', '"it was a joy"')
    assert "`bad`, `fair`, `good`" in card
    monkeypatch.chdir(run.path)
    names: dict[str, Any] = {}
    exec(code, names)
    if "logits" not in names:
        tokens = names["tokenizer"]("it was a joy", return_tensors="pt")
        names["logits"] = names["model"].eval()(**tokens).logits
    shares = names["logits"].softmax(-1)[0].tolist()
    ours = Classifier.open(str(run.path)).predict(["it was a joy"])[0].probabilities
    assert shares == pytest.approx([ours[name] for name in sorted(ours)], abs=1e-5)


def test_what_is_saved_loads_with_plain_transformers_and_peft(tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for method in ("full", "lora"):
        made = {
            "objective": "classification",  # with BERT's own pooling, and so its own head
            "output": str(tmp_path / method),
            "training": {"max_steps": 3, "trackers": []},
        }
        run = luthier.train(recipe(tmp_path, method) | made, quiet=True)
        folder = run.path / "model"
        if method == "full":
            plain = AutoModelForSequenceClassification.from_pretrained(folder)
            assert plain.config.id2label == {0: "bad", 1: "fair", 2: "good"}
        else:
            plain = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=3)
        tokens = AutoTokenizer.from_pretrained(folder)(
            "in the end it was fine", return_tensors="pt"
        )
        tokens.pop("token_type_ids", None)
        with torch.no_grad():
            scores = plain.eval()(**tokens).logits.softmax(-1)[0]
        ours = Classifier.open(str(run.path)).predict(["in the end it was fine"])[0].probabilities
        assert scores.tolist() == pytest.approx([ours[n] for n in sorted(ours)], abs=1e-5)


def test_several_labels_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = [
        {"text": f"{first} and {second} {n}", "label": sorted({first, second} - {"nothing"})}
        for first in ("fast", "cheap", "nothing")
        for second in ("cheap", "kind", "nothing")
        for n in range(8)
    ]
    run = luthier.train(recipe(tmp_path, "full", data={"train": several}), quiet=True)
    assert run.metrics["f1_macro"]["after"] > run.metrics["f1_macro"]["before"]
    found = Classifier.open(str(run.path)).predict(["fast and kind 3"])[0]
    assert set(found.probabilities) == {"cheap", "fast", "kind"}
    sizes = {"tiny": 0.5, "small": 2.0, "large": 4.5, "huge": 9.0}
    numbers = [{"text": f"{w} {w} {n}", "label": v} for w, v in sizes.items() for n in range(12)]
    made = {"data": {"train": numbers, "validation": 0.2}, "output": str(tmp_path / "numbers")}
    longer = recipe(tmp_path, "full") | made
    longer["training"]["epochs"] = 30
    run = luthier.train(longer, quiet=True)
    errors = run.metrics["mean_squared_error"]
    assert errors["after"] < errors["before"] / 4
    assert "accuracy" not in run.metrics
    capsys.readouterr()
    assert cli.run(["generate", str(run.path), "--prompt", "huge huge 3"]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(9.0, abs=3)


def test_pairs_are_told_apart_by_their_second_text(tmp_path: Path) -> None:
    pairs = [
        {"premise": f"the {a} is here {n}", "hypothesis": f"the {b} is here", "label": str(a == b)}
        for a in ("cat", "dog")
        for b in ("cat", "dog")
        for n in range(12)
    ]
    run = luthier.train(recipe(tmp_path, "full", data={"train": pairs}), quiet=True)
    classifier = Classifier.open(str(run.path))
    one, two = classifier.predict([("the cat is here 1", "the cat is here"), "the cat is here 1"])
    assert one.probabilities != two.probabilities


def test_a_probe_and_then_full_tuning_are_two_stages(tmp_path: Path) -> None:
    stages = [{"method": "head"}, {"method": "full", "training": {"learning_rate": 1e-3}}]
    run = luthier.train(recipe(tmp_path, "head", stages=stages), quiet=True)
    one, two = (stage.path for stage in run.folder.stages)
    first, second = (luthier.Run(luthier.core.rundir.RunDir(path)) for path in (one, two))
    assert first.metrics["accuracy"]["after"] == second.metrics["accuracy"]["before"]
    assert second.metrics["accuracy"]["after"] >= 0.6


def test_overlong_texts_lose_their_beginning_and_keep_their_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [{"text": "so " * 40 + row["text"], "label": row["label"]} for row in rows()]
    data = {"train": long, "validation": 0.25, "max_length": 24, "overlong": "left"}
    asked = {"resamples": 100, "prompts": ["it was a joy", "dull " * 40]}
    run = luthier.train(recipe(tmp_path, "full", data=data, evaluation=asked))
    assert "evaluation.prompts: text 2 of" in capsys.readouterr().out
    counts = json.loads((run.path / "environment.json").read_text())["data"]["train"]
    assert counts["cut"]["examples"] == counts["examples"]
    assert run.metrics["accuracy"]["after"] > 0.6
    again = recipe(tmp_path, "full", data={**data, "overlong": "refuse"})
    with pytest.raises(UserError, match="only 24 fit"):
        luthier.train({**again, "output": str(tmp_path / "other")}, quiet=True)


def test_what_makes_no_sense_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="reads only the language-model head"):
        luthier.train(recipe(tmp_path, "head", objective="sft"), quiet=True)
    one = recipe(tmp_path, "full", training={"max_steps": 1, "trackers": []})
    run = luthier.train(one, quiet=True)
    talk = {"train": [{"prompt": f"{n}", "response": "b"} for n in range(20)]}
    wrong = {
        **one,
        "model": str(run.path),
        "objective": "sft",
        "data": talk,
        "output": str(tmp_path / "talk"),
    }
    with pytest.raises(UserError, match="is a classifier, and 'sft' learns with a language model"):
        luthier.train(wrong, quiet=True)
    with pytest.raises(UserError, match="it does not talk"):
        run.generate("a text")
    assert cli.run(["chat", str(run.path)]) == 2
    assert "it does not talk" in capsys.readouterr().err
    with pytest.raises(UserError, match="is no classifier"):
        Classifier.open("builtin:nano")
    assert cli.run(["generate", "builtin:nano", "--prompt", "a", "--second", "b"]) == 2
