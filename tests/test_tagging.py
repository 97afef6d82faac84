"""Token classification from rows to a model that marks entities, on tiny encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import pytest
import torch

import luthier
from luthier import cli
from luthier.chat import Chat
from luthier.classify import Classifier
from luthier.core.errors import UserError
from luthier.export import export
from luthier.tag import Tagger

NAMES = {"LOC": ("rome", "oslo", "new york"), "PER": ("anna", "bob", "mary jane")}


def sentence(place: str, person: str, number: int) -> dict[str, Any]:
    words, tags = [], []
    for text, kind in ((person, "PER"), ("saw", ""), (place, "LOC"), (f"at {number}", "")):
        for index, word in enumerate(text.split()):
            words.append(word)
            tags.append(f"{'I' if index else 'B'}-{kind}" if kind else "O")
    return {"tokens": words, "tags": tags}


def rows() -> list[dict[str, Any]]:
    return [
        sentence(place, person, number)
        for number in range(4)
        for place in NAMES["LOC"]
        for person in NAMES["PER"]
    ]


def recipe(tmp_path: Path, method: Any = "full", name: str = "bert", **changes: Any) -> Any:
    family = "byte_level" if name == "roberta" else "wordpiece"
    return {
        "model": str(encoders.saved(tmp_path / "base", name, family)),
        "objective": "token_classification",
        "method": method,
        "data": {"train": rows(), "validation": 0.25},
        "training": {
            "epochs": {"full": 8, "head": 30, "lora": 20}[method],
            "batch_size": 8,
            "learning_rate": {"full": 3e-3, "head": 5e-2, "lora": 1e-2}[method],
            "precision": "float32",
            "threads": 1,
            "trackers": [],
        },
        "evaluation": {"samples": 3, "resamples": 100, "prompts": ["anna saw new york at 1"]},
        "output": str(tmp_path / "run"),
        **changes,
    }


@pytest.mark.parametrize(
    ("method", "name"),
    [("full", "bert"), ("full", "modernbert"), ("lora", "distilbert"), ("lora", "roberta")],
)
def test_rows_become_a_model_that_marks_entities(
    method: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = luthier.train(recipe(tmp_path, method, name), quiet=True)
    assert run.metrics["entity_f1"]["after"] > max(0.9, run.metrics["entity_f1"]["before"])
    assert run.metrics["token_accuracy"]["after"] > 0.9
    [loc, per] = run.evaluation["entities"]["per_type"]
    assert (loc["name"], per["name"]) == ("LOC", "PER")
    assert loc["support"] == per["support"] == run.evaluation["rows"]
    assert run.samples[0]["after"] == "[anna PER] saw [new york LOC] at 1"
    assert run.samples[1]["after"] == run.samples[1]["reference"]
    assert "[" in run.samples[1]["reference"]
    opened = luthier.open(str(run.path))
    assert isinstance(opened, Tagger)
    assert opened.types == ["LOC", "PER"]
    [found, words] = opened.predict(["bob saw  new york!", ["anna", "saw", "rome"]])
    assert str(found) == "[bob PER] saw  [new york LOC]!"
    spans = [(s.text, s.type, s.start, s.stop) for s in found.spans]
    assert spans == [("bob", "PER", 0, 3), ("new york", "LOC", 9, 17)]
    assert all(0.4 < span.score <= 1 for span in found.spans)
    assert words.tags == ("B-PER", "O", "B-LOC")
    assert cli.run(["generate", str(run.path), "--prompt", "bob saw  new york!"]) == 0
    assert capsys.readouterr().out == "[bob PER] saw  [new york LOC]!\n"
    page = (run.path / "report.html").read_text()
    assert "Type by type, weakest first" in page
    assert ">Entity F1<" in page
    lines = [json.loads(line) for line in (run.path / "scores.jsonl").read_text().splitlines()]
    assert {line["model"] for line in lines} == {"before", "after"}
    assert all(line["entities"] == line["predicted"] for line in lines if line["model"] == "after")
    done = export(run.path, "merged", tmp_path / "merged", say=lambda _line: None)
    assert done.difference < 1e-4
    again = Tagger.open(str(tmp_path / "merged")).predict(["bob saw  new york!"])[0]
    assert str(again) == str(found)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_cards_lines_load_it_with_plain_transformers_or_peft(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = luthier.train(recipe(tmp_path, method), quiet=True)
    code = (run.path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "ForTokenClassification" in code
    monkeypatch.chdir(run.path)
    names: dict[str, Any] = {}
    exec(code, names)
    model = names["model"].eval()
    if method == "full":
        assert model.config.id2label == dict(enumerate(encoders.TAGS))
    made = names["tokenizer"]("anna saw new york", return_tensors="pt")
    with torch.no_grad():
        best = model(**made).logits[0].argmax(-1).tolist()
    words = made.word_ids()
    firsts = [words.index(word) for word in range(4)]
    said = [encoders.TAGS[best[at]] for at in firsts]
    assert said == ["B-PER", "O", "B-LOC", "I-LOC"]


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_head_alone_learns_from_the_cached_states_of_words(name: str, tmp_path: Path) -> None:
    run = luthier.train(recipe(tmp_path, "head", name), quiet=True)
    figure = run.metrics["entity_f1"]
    assert figure["after"] > max(0.4, figure["before"])


def test_long_sentences_are_read_in_windows_and_counted_once(tmp_path: Path) -> None:
    joined = [
        {key: [item for row in rows()[n : n + 6] for item in row[key]] for key in rows()[0]}
        for n in range(0, 36, 6)
    ]
    data = {"train": joined * 4, "validation": joined[:3], "max_length": 16, "check": "off"}
    asked = {"resamples": 100, "prompts": ["anna saw new york at 1 " * 9]}
    run = luthier.train(recipe(tmp_path, data=data, evaluation=asked), quiet=True)
    counts = json.loads((run.path / "environment.json").read_text())["data"]["validation"]
    assert counts["cut"]["windows"] > 6
    assert counts["cut"]["targets"] == 0
    assert run.evaluation["rows"] == 3
    assert run.metrics["entity_f1"]["after"] > 0.9
    assert sum(one["support"] for one in run.evaluation["entities"]["per_type"]) == 3 * 12
    assert run.samples[0]["after"].count("[new york LOC]") == 9
    tagger = Tagger.open(str(run.path))
    long = "bob saw oslo at 2 " * 60
    assert str(tagger.predict([long])[0]).count("[oslo LOC]") == 60
    assert "was read in" in tagger.notices[0]


def test_tags_that_mark_nothing_get_accuracy_alone(tmp_path: Path) -> None:
    plain = [
        {"tokens": r["tokens"], "tags": ["X" if t == "O" else "Y" for t in r["tags"]]}
        for r in rows()
    ]
    run = luthier.train(
        recipe(tmp_path, data={"train": plain, "validation": 0.25, "format": "tagged"}), quiet=True
    )
    assert set(run.metrics) == {"token_accuracy"}
    assert run.evaluation["entities"] is None
    assert run.metrics["token_accuracy"]["after"] > 0.9
    assert run.samples[0]["after"].startswith("anna/Y saw/X")
    [found] = Tagger.open(str(run.path)).predict(["bob saw oslo"])
    assert found.tags == ("Y", "X", "Y")
    assert found.spans == ()


def test_a_run_goes_on_from_a_tagger_with_its_tags(tmp_path: Path) -> None:
    run = luthier.train(recipe(tmp_path), quiet=True)
    again = recipe(tmp_path) | {
        "model": str(run.path),
        "training": {"max_steps": 1, "trackers": [], "threads": 1},
        "output": str(tmp_path / "again"),
    }
    second = luthier.train(again, quiet=True)
    before = second.metrics["entity_f1"]["before"]
    assert before == run.metrics["entity_f1"]["after"] > 0.9


def test_what_makes_no_sense_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = recipe(tmp_path, training={"max_steps": 1, "trackers": []})
    run = luthier.train(few, quiet=True)
    talk = {"train": [{"prompt": f"{n}", "response": "b"} for n in range(20)]}
    wrong = {**few, "model": str(run.path), "objective": "sft", "data": talk, "output": "x"}
    with pytest.raises(UserError, match="classifier of tokens, and 'sft' learns with a language"):
        luthier.train(wrong, quiet=True)
    with pytest.raises(UserError, match="is no classifier"):
        Classifier.open(str(run.path))
    with pytest.raises(UserError, match="tags no words"):
        Tagger.open("builtin:nano")
    assert cli.run(["chat", str(run.path)]) == 2
    assert "does not talk" in capsys.readouterr().err
    assert cli.run(["generate", str(run.path), "--prompt", "a", "--second", "b"]) == 2
    unknown = encoders.saved(tmp_path / "none", "bert")
    text = (unknown / "config.json").read_text().replace('"bert"', '"vit"')
    (unknown / "config.json").write_text(text)
    with pytest.raises(UserError, match="has no token classification head"):
        luthier.train(few | {"model": str(unknown), "output": str(tmp_path / "n")}, quiet=True)


def test_show_and_inspect_tell_what_is_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    made = recipe(tmp_path, data={"train": str(tmp_path / "rows.jsonl"), "validation": 0.25})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(made))
    assert cli.run(["data", "show", str(tmp_path / "recipe.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "[[" in shown
    few = ["training.max_steps=1", f"output={tmp_path / 'told'}"]
    assert cli.run(["train", str(tmp_path / "recipe.yaml"), *few]) == 0
    assert "luthier generate" in capsys.readouterr().out
    assert cli.run(["inspect", str(tmp_path / "recipe.yaml")]) == 0
    assert "Nothing is refused" in capsys.readouterr().out


def test_on_a_terminal_entities_stand_in_colour() -> None:
    from luthier.commands.labelling import painted
    from luthier.tag import Span, Tagging

    spans = (Span("Angela", "PER", 0, 6, 0.9), Span("New York", "LOC", 10, 18, 0.8))
    text = painted(Tagging("Angela in New York.", (), (), spans, ""), ["LOC", "PER"])
    assert text.plain == "Angela PER in New York LOC."
    styles = {text.plain[span.start : span.end].strip(): str(span.style) for span in text.spans}
    assert styles["Angela"] != styles["New York"]
    assert all(styles[word].startswith("bold") for word in ("Angela", "New York"))


def test_open_gives_what_a_model_is() -> None:
    assert isinstance(luthier.open("builtin:nano"), Chat)
