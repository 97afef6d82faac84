"""Generators and encoders that data borrows, from a run that asks a server to one that need not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import classifiers
import numpy as np
import pytest
import torch
from chat_server import Reply, serving
from tiny_runs import sums, tiny_recipe

import luthier
from luthier import cli
from luthier.chat import Chat
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError, UserError
from luthier.core.generators import GeneratorSpec, Question
from luthier.core.marks import mark
from luthier.core.records import Origin, Turn
from luthier.data_models import LocalWriter, OpenedModels
from luthier.data_report import report
from luthier.data_report.texts import Texts
from luthier.preview import preview
from luthier.show import show


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


def questions(count: int = 40) -> list[Question]:
    return [
        Question((Turn("user", f"What is {n % 8} plus {n // 8}?"),), n, (Origin("a", n),))
        for n in range(count)
    ]


def local(folder: Path, said: list[str] | None = None, **settings: Any) -> LocalWriter:
    spec = GeneratorSpec(model=str(folder), **{"max_tokens": 12, **settings})
    return LocalWriter(spec, (said if said is not None else []).append, torch.device("cpu"))


# A model on this machine.


def test_a_local_model_answers_and_is_not_asked_again(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    found = local(tiny_run, said, temperature=0).answers(questions())
    assert said == [f"40 questions to {tiny_run}, on this machine"]
    assert sum(answer is not None for answer in found) > 20, "it learned to end its answers"
    chat = Chat.open(str(tiny_run))
    for question, answer in zip(questions(9), found, strict=False):
        assert answer in (None, chat.answer(question.turns[0].content, max_new_tokens=12))
    monkeypatch.setattr("luthier.data_models.load", None)  # loading it would fail
    assert local(tiny_run, said, temperature=0).answers(questions()) == found
    assert len(said) == 1


def test_the_same_answers_after_a_break(tiny_run: Path, tmp_path: Path) -> None:
    """Drawn answers depend on their batch: those of a batch are kept together or not at all."""
    whole = local(tiny_run).answers(questions())
    (victim,) = [p for p in (tmp_path / "cache" / "answers").glob("*/answers.json")
                 if len(json.loads(p.read_text())) == 8]  # fmt: skip
    victim.unlink()
    assert local(tiny_run).answers(questions()) == whole
    for path in (tmp_path / "cache" / "answers").glob("*/answers.json"):
        path.unlink()
    assert local(tiny_run).answers(questions()) == whole
    assert local(tiny_run, temperature=2.0).answers(questions()) != whole


def test_an_answer_that_is_cut_is_none(tiny_run: Path) -> None:
    assert local(tiny_run, temperature=0, max_tokens=3).answers(questions(8)) == [None] * 8


def test_questions_that_do_not_fit_are_said(tiny_run: Path) -> None:
    said: list[str] = []
    long = Question((Turn("user", "plus " * 400),), 0, ())
    found = local(tiny_run, said).answers([long, *questions(1)])
    assert found[0] is None
    assert said[1].startswith("1 question not asked: with 12 tokens for an answer")


def test_a_classifier_writes_nothing(tmp_path: Path) -> None:
    module = classifiers.own("bert")
    module.save_pretrained(tmp_path / "bert")
    builders.tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(RecipeError, match="is a classifier: it writes nothing"):
        local(tmp_path / "bert").answers(questions(1))


# An encoder.


def test_texts_as_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModel

    torch.manual_seed(0)
    trunk = AutoModel.from_config(classifiers.config("bert")).eval()
    trunk.save_pretrained(tmp_path / "enc")
    tokenizer = builders.tokenizer()
    tokenizer.save_pretrained(tmp_path / "enc")
    texts = [*builders.SENTENCES, "a b c d " * 60]
    state = torch.get_rng_state()
    said: list[str] = []
    found = OpenedModels("cpu").embed(str(tmp_path / "enc"), texts, said.append)
    assert torch.equal(state, torch.get_rng_state()), "opening it moves no draw of the run"
    assert found.shape == (7, 32)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    ids = tokenizer(texts[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        plain = trunk(input_ids=ids).last_hidden_state[0].mean(0)
    assert np.allclose(found[0], plain / plain.norm(), atol=1e-4)
    assert len(said) == 1
    assert said[0].startswith("1 text longer than")
    monkeypatch.setattr("luthier.data_models.load", None)
    again = OpenedModels("cpu").embed(str(tmp_path / "enc"), texts, said.append)
    assert np.array_equal(again, found)


# A run.


def turned(prompt: str, _number: int) -> Reply:
    """The question the other way round, its numbers kept in order."""
    return Reply(" ".join(reversed(prompt.split("\n\n", 1)[1].split())) + " tell me now please")


def augmented(folder: Path, url: str, **changes: Any) -> dict[str, Any]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in sums()))
    generator = {"url": url, "model": "m", "key_env": "TEST_KEY"}
    data = {
        "train": str(path),
        "augment": [{"kind": "paraphrase", "generator": generator}],
        "augment_share": 0.5,
        **changes,
    }
    return tiny_recipe(folder / "run", data=data)


def test_a_run_asks_once_and_a_second_start_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-hidden-000111")
    with serving(turned) as server:
        values = augmented(tmp_path, server.url)
        values["training"]["max_steps"] = 2
        run = luthier.train(values)
        host = server.url.removeprefix("http://").removesuffix("/v1")
        first = capsys.readouterr().out
        asked = len(server.seen)
        assert asked == 29, "half as many as the 58 training rows"
        assert (
            "29 questions with the text of 29 training rows to "
            f"{host} (this machine), model m" in " ".join(first.split())
        )
        held = {json.dumps(row["prompt"]) for row in sums()} - {
            json.dumps(record.turns[0].content)  # type: ignore[attr-defined]
            for record in preview(recipes.load(values)).train.real.records
        }
        assert len(held) == 6
        assert not [text for text in server.asked if any(json.loads(h) in text for h in held)]
        assert len(server.seen) == asked, "the preview found every answer in the cache"
    luthier.train({**values, "output": str(tmp_path / "again")}, quiet=True)  # nobody listens
    note = json.loads((run.path / "environment.json").read_text())
    assert note["data"]["train"]["augmented"] == {"1 paraphrase": {"made": 29}}
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            assert b"sk-hidden-000111" not in path.read_bytes()
    for name in ("run", "again"):
        scored = (tmp_path / name / "scores.jsonl").read_text()
        assert scored
        assert "made by" not in scored, "nothing is measured with what was made"
    said = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "key_env: TEST_KEY" in said


def test_an_error_on_the_way_is_a_users_error(tmp_path: Path, capsys: Any) -> None:
    with serving(lambda *_: Reply(status=404, body="no model m")) as server:
        values = augmented(tmp_path, server.url)
        del values["data"]["augment"][0]["generator"]["key_env"]
        with pytest.raises(UserError, match="the generator answered 404: no model m"):
            preview(recipes.load(values))
    assert "training rows to 127.0.0.1" in capsys.readouterr().err, "said before, and aloud"


def test_made_rows_show_their_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in sums()))
    recipe = recipes.load(
        tiny_recipe(tmp_path / "run", data={"train": str(path), "augment": "word_swap"})
    )
    seen = preview(recipe)
    one = next(record for record in seen.train.records if mark(record.origin))
    shown = show(recipe, str(one.origin))
    assert shown.origin.endswith(f"rows.jsonl (made by word_swap):{one.origin.line}")
    assert shown.fields["turns"][0]["content"] == one.turns[0].content  # type: ignore[attr-defined]
    real = show(recipe, str(one.origin.line))
    assert real.origin.endswith(f"rows.jsonl:{one.origin.line}"), "a line alone is the real row"
    found = report(recipe, group="prompt")
    assert found.groups is not None
    assert "(made by word_swap)" in {group.name for group in found.groups.groups}
    assert any("augment, word_swap: " in line for line in found.said)
    place = Texts([str(path)]).place(str(one.origin))
    assert place == f"rows.jsonl (made by word_swap):{one.origin.line}"


def test_the_command_says_and_writes_what_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in sums()))
    words = ["model=builtin:nano", f"data.train={path}", "data.augment=word_swap"]
    recipe = tmp_path / "r.yaml"
    recipe.write_text("objective: sft\nmodel: builtin:nano\n")
    assert cli.run(["data", "prepare", str(recipe), *words, "-o", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "augment, word_swap: 58 rows made" in said
    assert "58 of the rows made by data.augment" in said
    written = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert sum("made_by" in row for row in written) == 58
    assert "made_by" not in (out / "validation.jsonl").read_text()
    assert cli.run(["list", "augmenters"]) == 0
    listed = capsys.readouterr().out
    assert "word_swap" in listed
    assert "paraphrase" in listed
