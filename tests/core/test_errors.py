"""Errors teach: place, cause, cure, all at once, and an exit code."""

from __future__ import annotations

import pickle

import pytest

from luthier.core import errors
from luthier.core.errors import DataError, Fault, RecipeError, TrainingError, UserError, nearest


def test_a_fault_reads_place_cause_cure() -> None:
    assert str(Fault("wrong", "recipe.yaml:4:3", "mend it")) == (
        "recipe.yaml:4:3: wrong\n  cure: mend it"
    )
    assert str(Fault("wrong")) == "wrong"
    assert str(Fault("wrong", cure="mend it")) == "wrong\n  cure: mend it"


def test_several_faults_are_one_error_of_the_asked_kind() -> None:
    faults = [Fault("first", "a:1"), Fault("second", "b:2", "do that")]
    error = RecipeError.of(iter(faults))
    assert type(error) is RecipeError
    assert error.faults == tuple(faults)
    assert str(error) == "a:1: first\nb:2: second\n  cure: do that"
    assert error.args == (str(error),)


def test_an_error_without_a_fault_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        UserError.of([])


@pytest.mark.parametrize(
    ("family", "code"), [(UserError, 1), (DataError, 1), (TrainingError, 1), (RecipeError, 2)]
)
def test_exit_codes(family: type[UserError], code: int) -> None:
    assert family("x").exit_code == code
    assert family.of([Fault("x")]).exit_code == code
    assert isinstance(family("x"), UserError)


def test_one_fault_from_words() -> None:
    error = DataError("empty", "a.jsonl:3", "fill it", "no-text")
    assert error.faults == (Fault("empty", "a.jsonl:3", "fill it", "no-text"),)
    assert str(error) == "a.jsonl:3: empty\n  cure: fill it"


def test_errors_survive_the_way_between_processes() -> None:
    """Data is read, and ranks report, in other processes."""
    for error in (DataError("a", "b", "c", "d"), RecipeError.of([Fault("a"), Fault("b", "c")])):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert again.faults == error.faults
        assert str(again) == str(error)


@pytest.mark.parametrize(
    ("name", "names", "words"),
    [
        ("learning_rat", ["learning_rate", "epochs"], "did you mean 'learning_rate'?"),
        ("zzz", ["b", "a"], "one of: a, b"),
        ("zzz", [], "nothing is known by that name"),
        ("", ["a"], "one of: a"),
        ("LoRA", ["lora", "full"], "did you mean 'lora'?"),
        ("language-modeling", ["language_modeling"], "did you mean 'language_modeling'?"),
    ],
)
def test_nearest(name: str, names: list[str], words: str) -> None:
    assert nearest(name, iter(names)) == words


def test_every_family_is_a_user_error() -> None:
    families = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ]
    assert len(families) >= 4
    assert all(issubclass(family, UserError) for family in families)
