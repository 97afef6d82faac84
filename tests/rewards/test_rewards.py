"""What rules give, what models are asked, and that every reward keeps the contract."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import builders
import classifiers
import pytest

import luthier
from luthier.core import kinds
from luthier.core.contracts import Reward
from luthier.core.contracts_scores import Borrowing
from luthier.core.errors import DataError, RecipeError, UserError
from luthier.core.generators import Question
from luthier.core.records import Origin, Prompt, Turn
from luthier.core.rewards import RewardConfig, build, named, total, weights
from luthier.reward_models import OpenedRewards
from luthier.score import Scorer

REWARDS = kinds.names("rewards")


def reward(kind: str, **settings: Any) -> Any:
    given = {**builders.settings("rewards", kind), **settings}
    return kinds.build("rewards", kinds.config("rewards", given))


def asked(line: int = 1, **check: Any) -> Prompt:
    return Prompt(Origin("made.jsonl", line), (Turn("user", "What is 2 + 2?"),), check)


def scores(made: Any, answers: Sequence[str], **check: Any) -> list[float]:
    found: list[float] = made.score([asked(**check)] * len(answers), list(answers))
    return found


class Models:
    """Models that rewards may borrow, each of which says something simple."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def probabilities(self, model: str, label: str) -> Callable[[Sequence[str]], list[float]]:
        return lambda texts: [len(text) / 100 for text in texts]

    def scores(self, model: str) -> Callable[[Sequence[tuple[Prompt, str]]], list[float]]:
        return lambda pairs: [float(len(answer)) for _, answer in pairs]

    def writer(self, spec: Any) -> Any:
        models = self

        class Writer:
            def answers(self, questions: Sequence[Question]) -> list[str | None]:
                models.asked += questions
                return ["I would say 7 of 10.", "none", None, "99"][: len(questions)]

        return Writer()


@pytest.mark.parametrize("kind", REWARDS)
def test_every_reward_keeps_the_contract(kind: str) -> None:
    made = reward(kind)
    assert isinstance(made, Reward)
    assert isinstance(made.slow, bool)
    assert issubclass(kinds.module("rewards", kind).Config, RewardConfig)
    assert kinds.summary("rewards", kind)
    if isinstance(made, Borrowing):
        made.borrow(Models())
    answers = ["4", '{"a": 1}', "the the the the"]
    check = {"answer": "4", "schema": {"type": "object"}}
    together = scores(made, answers, **check)
    assert len(together) == 3
    assert all(isinstance(score, float) for score in together)
    if kind != "judge":  # whose stand-in answers by place
        assert [scores(made, [answer], **check)[0] for answer in answers] == together
    assert scores(made, [], **check) == []


# Rules


@pytest.mark.parametrize(
    ("right", "answer", "earned"),
    [
        ("42", "The sum is 42.", 1),
        ("42", "42 or 43", 0),
        ("42", "First 41, then 42", 1),
        ("1,250", "that makes 1250.0", 1),
        ("$0.5", "1/2", 1),
        ("-3", "it is -3", 1),
        ("-3", "it is 3", 0),
        ("42", "no idea", 0),
        ("Paris", "  paris. ", 1),
        ("Paris", "It is Paris", 0),
        ("1 2 3", "1 2 3", 1),
        ("1 2 3", "3", 0),
    ],
)
def test_exact(right: str, answer: str, earned: float) -> None:
    made = reward("exact") if " " not in right else reward("exact", compare="text")
    assert scores(made, [answer], answer=right) == [earned]


def test_exact_looks_behind_a_mark_and_has_prices_of_its_own() -> None:
    made = reward("exact", behind="####", right=2.0, wrong=-1.0)
    found = scores(made, ["3 and 4\n#### 7", "#### 6", "it is 7"], answer="7")
    assert found == [2.0, -1.0, -1.0]
    with pytest.raises(DataError, match="right answer") as caught:
        scores(made, ["7"])
    assert caught.value.faults[0].place == "made.jsonl:1"


def test_pattern() -> None:
    made = reward("pattern", pattern="<answer>.*</answer>")
    assert scores(made, ["so <answer>4\n</answer>!", "<answer>4"]) == [1.0, 0.0]
    whole = reward("pattern", pattern="[0-9]+", whole=True, missing=-1.0)
    assert scores(whole, ["123", "123 "]) == [1.0, -1.0]
    with pytest.raises(kinds.BadConfigError, match="regular expression"):
        reward("pattern", pattern="(")


def test_schema() -> None:
    shape = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    made = reward("schema", json_schema=shape, parsed=0.25)
    said = ['{"n": 3}', 'Here:\n```json\n{"n": 3}\n```\nDone', '{"n": "3"}', "{n: 3}", "[" * 9999]
    assert scores(made, said) == [1.0, 1.0, 0.25, 0.0, 0.0]
    bare = reward("schema", json_schema=shape, fences=False)
    assert scores(bare, said[:2]) == [1.0, 0.0]
    own = reward("schema", json_schema=None)
    assert scores(own, ['"x"'], schema='{"type": "string"}') == [1.0]
    with pytest.raises(DataError, match="column schema"):
        scores(own, ["1"])
    with pytest.raises(DataError, match="column schema"):
        scores(own, ["1"], schema={"type": "nothing"})
    with pytest.raises(kinds.BadConfigError, match="no JSON Schema"):
        reward("schema", json_schema={"type": 3})


def test_length_and_repetition() -> None:
    made = reward("length", least=2, most=4, slope=4)
    said = ["one", "one two", "a b c d", "a b c d e f", "a " * 40]
    assert scores(made, said) == [-0.25, 0, 0, -0.5, -1.0]
    assert scores(reward("length", most=3, unit="characters", slope=2), ["abcd"]) == [-0.5]
    with pytest.raises(kinds.BadConfigError, match="bound"):
        reward("length", most=None)
    again = reward("repetition", words=2)
    assert scores(again, ["a b c d", "A b a b a b", "a"]) == [0, 2 / 5 - 1, 0]


def test_a_function_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_rewards")
    module.near = lambda prompt, answer, check: -abs(len(answer) - check["length"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    made = reward("function", function="own_rewards:near", slow=True)
    assert made.slow
    assert scores(made, ["abc", "a"], length=3) == [0.0, -2.0]
    for path in ("own_rewards:far", "no_such_module:near"):
        with pytest.raises(RecipeError, match="cannot import"):
            reward("function", function=path)


# Sums


def test_several_rewards_are_summed_by_weight() -> None:
    configs = [
        kinds.config("rewards", each)
        for each in (
            {"kind": "exact", "weight": 2},
            {"kind": "pattern", "pattern": "x"},
            {"kind": "pattern", "pattern": "y", "weight": -0.5},
        )
    ]
    assert list(named(configs)) == ["exact", "pattern", "pattern_2"]
    made = build(configs)
    parts = {name: scores(each, ["4 xy"], answer="4")[0] for name, each in made.items()}
    assert parts == {"exact": 1.0, "pattern": 1.0, "pattern_2": 1.0}
    assert total(parts, weights(configs)) == 2.5


# Models


def test_a_judges_grades_are_read_between_0_and_1() -> None:
    models = Models()
    made = reward("judge", judge={"model": "m", "url": "http://127.0.0.1:1/v1"}, unreadable=0.1)
    assert made.slow
    made.borrow(models)
    found = scores(made, ["4", "5", "6", "7"])
    assert found == pytest.approx([6 / 9, 0.1, 0.1, 1.0])
    assert "What is 2 + 2?" in models.asked[0].turns[0].content
    assert not reward("judge", judge="builtin:nano").slow


def test_a_reward_models_scores_may_be_bounded() -> None:
    made = reward("model", model="runs/x", bound=2.0)
    made.borrow(Models())
    assert scores(made, ["a", "abcde"]) == [1.0, 2.0]


def test_a_classifiers_probability_is_earned(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    classifiers.own("llama").save_pretrained(folder)
    builders.tokenizer().save_pretrained(folder)
    labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    models = OpenedRewards("cpu", lambda line: None)
    found = []
    for label in labels.values():
        made = reward("classifier", model=str(folder), label=label)
        made.borrow(models)
        found.append(scores(made, ["the cat sat on the mat", "we open at nine", "  "]))
    sums = [sum(column) for column in zip(*found, strict=True)]
    assert sums == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)
    assert len({round(each[0], 6) for each in found}) > 1
    with pytest.raises(UserError, match="knows no class"):
        models.probabilities(str(folder), "nothing")
    with pytest.raises(UserError, match="tells no classes apart"):
        models.probabilities("builtin:nano", "good")


def test_a_reward_model_is_asked_of_prompt_and_answer(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"tell me of number {i}", "chosen": said, "rejected": said[:7]}
        for i, said in enumerate(builders.SENTENCES)
    ]
    base = builders.talking(len(builders.tokenizer()), num_hidden_layers=1)
    base.save_pretrained(tmp_path / "base")
    builders.tokenizer().save_pretrained(tmp_path / "base")
    recipe = {
        "model": str(tmp_path / "base"),
        "objective": "reward",
        "method": "full",
        "data": {"train": rows, "validation": 0, "check": "off"},
        "training": {"max_steps": 1, "precision": "float32", "device": "cpu", "trackers": []},
        "output": str(tmp_path / "run"),
    }
    luthier.train(recipe, quiet=True)
    made = reward("model", model=str(tmp_path / "run"))
    made.borrow(OpenedRewards("cpu", lambda line: None))
    said = ["four", "the cat sat on the mat", ""]
    expected = Scorer.open(str(tmp_path / "run")).scores(["What is 2 + 2?"] * 3, said)
    assert scores(made, said) == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 1
    with pytest.raises(UserError, match="scores no answers"):
        OpenedRewards("cpu", lambda line: None).scores("builtin:nano")


def test_a_classifier_may_read_the_prompt_as_well() -> None:
    seen: list[str] = []

    class Watching(Models):
        def probabilities(self, model: str, label: str) -> Any:
            def told(texts: Sequence[str]) -> list[float]:
                seen.extend(texts)
                return [0.5] * len(texts)

            return told

    made = reward("classifier", model="x", label="y", read="both")
    made.borrow(Watching())
    assert scores(made, [" Four."]) == [0.5]
    assert seen == ["What is 2 + 2? Four."]
