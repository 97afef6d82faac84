"""Augmentation in a recipe: made rows are filtered, bounded and marked, and never measured with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import settings as least

from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.generators import GeneratorSpec, Question, Writer
from luthier.core.marks import mark
from luthier.core.records import Conversation, Example, Floats, Labelled, Origin, Record, Turn
from luthier.data.contents import asked
from luthier.data.mixture import drawing, grouping
from luthier.data.parts import Part, read_parts
from luthier.data.store import ExampleStore
from luthier.data.writing import write_rows

_A, _B, _C = (
    words.split()
    for words in (
        "red blue green grey brown white black pink gold teal",
        "house tower bridge garden market school river forest island harbour",
        "opens closes burns sinks shines grows falls waits turns sleeps",
    )
)


class Models:
    """Opens one model, whatever is named: a function of the prompt."""

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.answer = answer
        self.seen: list[Question] = []

    def writer(self, spec: GeneratorSpec, say: Callable[[str], None]) -> Writer:
        return self

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        self.seen += questions
        return [self.answer(question.turns[-1].content) for question in questions]

    def embed(self, model: str, texts: Sequence[str], say: Callable[[str], None]) -> Floats:
        raise AssertionError("nothing is embedded here")


def text(n: int) -> str:
    return (
        f"the {_A[n % 10]} {_B[n // 10 % 10]} of the {_A[n * 7 // 10 % 10]} lady "
        f"{_C[n * 3 % 10]} before the {_B[n * 3 // 7 % 10]} {_C[n // 3 % 10]} at night"
    )


def rows(count: int = 60) -> list[dict[str, Any]]:
    return [{"text": text(n), "label": "ab"[n % 3 == 0]} for n in range(count)]


def parts(
    folder: Path, steps: Any, answer: Any = None, seed: int = 0, **data: Any
) -> tuple[Part, Part | None, list[str]]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data.pop("rows", rows())))
    values = {"train": str(path), "validation": 0.2, "augment": steps, **data}
    recipe = recipes.load({"model": "m", "objective": "classification", "data": values})
    said: list[str] = []
    objective = kinds.build("objectives", recipe.objective)
    models = Models(answer or (lambda prompt: None))
    train, held = read_parts(recipe.data, objective, seed, said.append, models)
    return train, held, said


def made(part: Part) -> list[Record]:
    return [record for record in part.records if mark(record.origin)]


def real(part: Part) -> list[Record]:
    return [record for record in part.records if not mark(record.origin)]


def reversed_words(prompt: str) -> str:
    return " ".join(reversed(prompt.split("\n\n", 1)[1].split()))


PARAPHRASE = least("data/augmenters", "paraphrase")


@pytest.mark.parametrize("kind", kinds.names("data/augmenters"))
def test_made_rows_are_of_training_rows_and_marked(kind: str, tmp_path: Path) -> None:
    def answer(prompt: str) -> str:
        shown = [line for line in prompt.splitlines() if line.startswith("{")]
        if shown:
            turned = json.loads(shown[0])["text"].split()
            return json.dumps({"text": " ".join(reversed(turned))})
        return reversed_words(prompt)

    plain, held_before, _ = parts(tmp_path, [])
    train, held, said = parts(tmp_path, [least("data/augmenters", kind)], answer)
    assert held is not None
    assert held_before is not None
    assert held.records == held_before.records, "validation is what it was"
    assert held.fingerprint == held_before.fingerprint
    assert not made(held)
    assert tuple(real(train)) == plain.records, "and so are the real training rows"
    places = {(record.origin.source, record.origin.line) for record in plain.records}
    assert made(train)
    for record in made(train):
        assert mark(record.origin) == kind
        source = record.origin.source.removesuffix(f" (made by {kind})")
        assert (source, record.origin.line) in places, "of a training row, never of a held-out one"
    assert train.real.records == plain.records
    [(name, counts)] = train.augmented.items()
    assert name == f"1 {kind}"
    assert counts["made"] == len(made(train))
    assert any(line.startswith(f"augment, {kind}: {len(made(train))} rows made") for line in said)


@pytest.mark.parametrize("near", [False, True])
def test_what_a_validation_row_says_is_dropped(near: bool, tmp_path: Path) -> None:
    _, held, _ = parts(tmp_path, [])
    assert held is not None
    leaks = iter([asked(record) for record in held.records] * 9)

    def leak(prompt: str) -> str:
        said = next(leaks)
        return f"{said} again" if near else said.upper()

    train, same, said = parts(tmp_path, [PARAPHRASE], leak)
    assert same is not None
    assert same.records == held.records
    assert made(train) == []
    counts = train.augmented["1 paraphrase"]
    assert counts["made"] == 0
    assert counts["nearly the same as a validation row"] >= 12
    assert sum(counts.values()) == 48, "those said before by another made row count as such"
    assert any("0 rows made; left out" in line for line in said)


def test_noise_that_becomes_a_validation_row_is_dropped(tmp_path: Path) -> None:
    """Two words swap into what is held out: an equal text, although noise may be near to its row.

    Too short for shingles, so that nothing but equality finds it.
    """
    pairs = [{"text": f"{a} {b}", "label": "x"} for a in _A for b in _B]
    turned = [{"text": f"{b} {a}", "label": "x"} for a in _A for b in _B[:5]]
    valid = tmp_path / "valid.jsonl"
    valid.write_text("".join(json.dumps(row) + "\n" for row in turned))
    train, held, _ = parts(tmp_path, "word_swap", rows=pairs, validation=str(valid))
    assert held is not None
    assert train.augmented == {
        "1 word_swap": {"made": 50, "nearly the same as a validation row": 50}
    }
    assert not {asked(r) for r in made(train)} & {asked(r) for r in held.records}


def test_what_training_rows_or_made_ones_say_is_dropped(tmp_path: Path) -> None:
    train, _, _ = parts(tmp_path, [PARAPHRASE], lambda prompt: prompt.split("\n\n", 1)[1] + " now")
    assert train.augmented["1 paraphrase"] == {
        "made": 0, "nearly the same as another training row": 48,
    }  # fmt: skip
    one = "something that nobody in this file has ever said about a house or a tower before"
    train, _, _ = parts(tmp_path, [PARAPHRASE], lambda prompt: one)
    assert [asked(record) for record in made(train)] == [one]
    train, _, _ = parts(tmp_path, [PARAPHRASE, PARAPHRASE], lambda p: one, augment_share=2)
    assert train.augmented["2 paraphrase"]["made"] == 0, "nor what an earlier step made"


def test_noise_may_be_near_its_row_and_equal_to_none(tmp_path: Path) -> None:
    twice = [*rows(40), *rows(40)]
    train, _, _ = parts(tmp_path, [{"kind": "noise", "share": 0.01}], rows=twice, group="none")
    counts = train.augmented["1 noise"]
    assert counts["made"] > 40
    texts = [asked(record) for record in made(train)]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {asked(record) for record in real(train)}


def test_the_share_bounds_what_is_made_and_what_is_asked(tmp_path: Path) -> None:
    steps = [{"kind": "noise", "copies": 3}, "word_dropout"]
    train, _, said = parts(tmp_path, steps, augment_share=0.5)
    assert (len(real(train)), len(made(train))) == (48, 24)
    assert [counts["made"] for counts in train.augmented.values()] == [18, 6]
    assert "augment, noise: 18 rows are asked for, not 144: data.augment_share is 0.5" in said
    lines = [record.origin.line for record in made(train)]
    assert max(lines) > 40, "an even draw, not the first rows"
    everything, _, _ = parts(tmp_path, steps, augment_share=4)
    assert len(made(everything)) > 150
    asking = Models(reversed_words)
    recipe = recipes.load(
        {
            "model": "m",
            "objective": "classification",
            "data": {
                "train": rows(),
                "validation": 0,
                "augment": [PARAPHRASE],
                "augment_share": 0.1,
            },
        }
    )
    objective = kinds.build("objectives", recipe.objective)
    read_parts(recipe.data, objective, 0, lambda _: None, asking)
    assert len(asking.seen) == 6, "what would not be kept is not paid for"


def test_nothing_is_made_of_what_the_subset_left_out(tmp_path: Path) -> None:
    train, _, _ = parts(tmp_path, "word_swap", subset=20)
    assert (len(real(train)), len(made(train))) == (20, 20)
    assert {r.origin.line for r in made(train)} <= {r.origin.line for r in real(train)}


def test_the_fingerprint_tells_settings_and_answers_apart(tmp_path: Path) -> None:
    def name(steps: Any, answer: Any = None, seed: int = 0, **data: Any) -> str:
        return parts(tmp_path, steps, answer, seed, validation=0, **data)[0].fingerprint

    names = [
        name([]),
        name("noise"),
        name([{"kind": "noise", "share": 0.3}]),
        name("noise", seed=1),
        name("noise", augment_share=0.5),
        name([PARAPHRASE], reversed_words),
        name([PARAPHRASE], lambda prompt: reversed_words(prompt) + " oh"),
    ]
    assert len(set(names)) == len(names)
    assert name("noise") == names[1]


def test_a_share_without_a_step_is_said(tmp_path: Path) -> None:
    said = parts(tmp_path, [], augment_share=0.5)[2]
    assert "data.augment_share has no effect: data.augment names no step" in said


def test_long_equal_answers_do_not_make_prompts_equal(tmp_path: Path) -> None:
    """A question in other words is new, however long the answer that it shares with its parent."""
    answer = " ".join(text(n) for n in range(20, 32))
    talk = [{"prompt": text(n), "response": f"{answer} {_A[n]}"} for n in range(10)]
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in talk))
    spec = {"train": str(path), "validation": 0, "augment": [PARAPHRASE]}
    recipe = recipes.load({"model": "m", "objective": "sft", "data": spec})
    objective = kinds.build("objectives", recipe.objective)
    train, _ = read_parts(recipe.data, objective, 0, lambda _: None, Models(reversed_words))
    assert len(made(train)) == 10


def test_written_rows_show_the_mark_and_are_read_again(tmp_path: Path) -> None:
    train, _, _ = parts(tmp_path, "word_swap", augment_share=0.25)
    write_rows(tmp_path / "out.jsonl", train.records)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.get("made_by", "") for row in written] == [""] * 48 + ["word_swap"] * 12
    again, _, _ = parts(tmp_path, [], rows=written, validation=0)
    shown = [(r.text, r.label) for r in again.records if isinstance(r, Labelled)]
    assert shown == [(r.text, r.label) for r in train.records if isinstance(r, Labelled)]


def test_a_mark_is_no_part_of_a_files_name() -> None:
    assert mark(Origin("a (made by hand).csv", 1)) == ""
    assert mark(Origin("a.csv (made by my.own_kind)", 1)) == "my.own_kind"


def test_asked_is_what_is_read() -> None:
    talk = Conversation(
        Origin("a", 1), (Turn("system", "s"), Turn("user", "q"), Turn("assistant", "r"))
    )
    assert asked(talk).endswith("\nq")
    assert "r" not in asked(talk).split("\n")


def test_made_rows_belong_to_their_rows_entry_of_a_mixture(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 40)):
        lines = [json.dumps(row) + "\n" for row in rows(80)[first : first + 40]]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    mixture = [{"source": str(tmp_path / f"{name}.jsonl")} for name in "ab"]
    data = {"mixture": mixture, "validation": 0.2, "augment": "word_swap"}
    recipe = recipes.load({"model": "m", "objective": "classification", "data": data})
    objective = kinds.build("objectives", recipe.objective)
    train, _ = read_parts(recipe.data, objective, 0, lambda _: None)
    assert train.entries is not None
    for record, entry in zip(train.records, train.entries, strict=True):
        assert ("a.jsonl" in record.origin.source) == (entry == 0)
    assert len(made(train)) == len(real(train))
    examples = ExampleStore.build(
        Example((), {"classification": {"label": np.zeros(1)}}, record.origin)
        for record in train.records
    )
    drawn = drawing(recipe.data, objective, train, examples)
    assert drawn is not None
    assert sum(drawn[0].rows) == len(train.records)
    grouped = grouping(recipe.data, objective, train)
    assert grouped is not None
    assert [grouped(example) for example in examples] == train.entries


@pytest.mark.parametrize("same", ["prompt", "whole"])
def test_a_conversation_leaks_by_its_prompt_or_by_all_of_it(same: str, tmp_path: Path) -> None:
    """The prompt of a validation row with another answer, or nearly all of it by a long answer."""
    long = " ".join(text(n) for n in range(20, 40))
    valid = {"prompt": text(1), "response": long}
    train_row = {"prompt": text(2), "response": long if same == "whole" else "no"}
    said = text(1) if same == "prompt" else " ".join(reversed(text(5).split()))
    for name, row in (("train", train_row), ("valid", valid)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    data = {
        "train": str(tmp_path / "train.jsonl"),
        "validation": str(tmp_path / "valid.jsonl"),
        "augment": [PARAPHRASE],
    }
    recipe = recipes.load({"model": "m", "objective": "sft", "data": data})
    objective = kinds.build("objectives", recipe.objective)
    train, _ = read_parts(recipe.data, objective, 0, lambda _: None, Models(lambda prompt: said))
    assert train.augmented["1 paraphrase"] == {
        "made": 0,
        "nearly the same as a validation row": 1,
    }
