"""The demo's support data: large, varied, honest about what is held out, and the same each time."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import luthier
from luthier.demo.phrases import FAREWELL, Intent, Variants
from luthier.demo.slots import POOLS
from luthier.demo.support import INTENTS, Dialogue, answer_for, generate, slots_in, write

LONGEST_VALUE = 4  # words


@cache
def splits() -> tuple[list[Dialogue], list[Dialogue]]:
    return generate()


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def normal(text: str) -> str:
    """Return a text such that two that differ in case or punctuation only are equal."""
    return " ".join(words(text))


def values_of(split: str) -> frozenset[str]:
    pools = (getattr(pool, split) for pool in POOLS.values())
    return frozenset(normal(value) for pool in pools for value in pool)


def runs_of_words(text: str) -> Iterator[str]:
    """Yield all runs of up to LONGEST_VALUE words: each slot value in the text is one of them."""
    found = words(text)
    for start in range(len(found)):
        for end in range(start + 1, min(start + LONGEST_VALUE, len(found)) + 1):
            yield " ".join(found[start:end])


def values_in(text: str, values: frozenset[str]) -> frozenset[str]:
    return values.intersection(runs_of_words(text))


def texts(dialogues: list[Dialogue]) -> list[str]:
    return [message["content"] for dialogue in dialogues for message in dialogue.messages]


def customer_phrases(intent: Intent) -> list[Variants]:
    phrases = [intent.questions, *(follow_up.questions for follow_up in intent.follow_ups)]
    if intent.clarification is not None:
        phrases += [intent.clarification.vague, intent.clarification.give]
    return phrases


every_intent = pytest.mark.parametrize("intent", INTENTS, ids=lambda intent: intent.name)


def test_both_splits_are_large_enough_and_hold_every_intent_equally() -> None:
    train, held_out = splits()
    assert len(train) >= 2000
    assert len(held_out) == 240
    names = {intent.name for intent in INTENTS}
    assert len(names) == len(INTENTS) >= 15
    for dialogues in (train, held_out):
        counts = Counter(dialogue.intent for dialogue in dialogues)
        assert set(counts) == names
        assert len(set(counts.values())) == 1


def test_about_one_dialogue_in_seven_has_several_exchanges() -> None:
    for dialogues in splits():
        lengths = Counter(len(dialogue.messages) for dialogue in dialogues)
        assert set(lengths) == {2, 4, 6}
        assert 0.1 < 1 - lengths[2] / len(dialogues) < 0.2


def test_roles_alternate_from_the_customer_to_the_shop() -> None:
    for dialogue in [*splits()[0], *splits()[1]]:
        roles = [message["role"] for message in dialogue.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"].strip() for message in dialogue.messages)


@every_intent
def test_an_intent_has_many_phrasings_and_others_for_the_held_out_split(intent: Intent) -> None:
    assert len(set(intent.questions.train)) >= 16
    assert len(set(intent.questions.held_out)) >= 4


def test_no_held_out_phrasing_is_a_training_phrasing_with_other_slots() -> None:
    phrases = [p for intent in INTENTS for p in customer_phrases(intent)] + [FAREWELL.questions]

    def cores(split: str) -> set[str]:
        found = (phrase for variants in phrases for phrase in getattr(variants, split))
        return {normal(re.sub(r"\{\w+\}", "", phrase)) for phrase in found}

    assert not cores("train") & cores("held_out")


@every_intent
def test_held_out_phrasings_are_more_than_a_word_away_from_training(intent: Intent) -> None:
    for variants in customer_phrases(intent):
        for new in variants.held_out:
            for known in variants.train:
                a, b = set(words(new)), set(words(known))
                assert len(a & b) / len(a | b) < 0.8, (new, known)


@pytest.mark.parametrize("slot", POOLS)
def test_slot_values_are_disjoint_between_the_splits(slot: str) -> None:
    pool = POOLS[slot]
    assert len(set(pool.train)) == len(pool.train) > len(pool.held_out)
    assert len(set(pool.held_out)) == len(pool.held_out) > 0
    assert not set(pool.train) & set(pool.held_out)
    assert all(len(words(value)) <= LONGEST_VALUE for value in pool.train + pool.held_out)


def test_held_out_numbers_have_no_mark_by_which_training_could_rule_them_out() -> None:
    orders, dates = POOLS["order"], POOLS["date"]
    for place in range(4):
        assert {n[place] for n in orders.train} == {n[place] for n in orders.held_out}
    for part in (0, 1):
        assert {d.split()[part] for d in dates.train} == {d.split()[part] for d in dates.held_out}


def test_no_held_out_value_occurs_anywhere_in_the_training_text() -> None:
    train, held_out = splits()
    values = values_of("held_out")
    assert set().union(*(values_in(text, values) for text in texts(train))) == set()
    # The search does find such values where there are some.
    assert sum(bool(values_in(text, values)) for text in texts(held_out)) > 200


def test_no_first_question_occurs_twice() -> None:
    firsts = [[normal(d.messages[0]["content"]) for d in dialogues] for dialogues in splits()]
    for questions in firsts:
        assert len(set(questions)) == len(questions)
    assert not set(firsts[0]) & set(firsts[1])


def test_answers_name_what_the_customer_named_and_nothing_else() -> None:
    values = values_of("train") | values_of("held_out")
    named = 0
    for dialogue in [*splits()[0], *splits()[1]]:
        contents = [message["content"] for message in dialogue.messages]
        for question, answer in zip(contents[::2], contents[1::2], strict=True):
            found = values_in(question, values)
            assert found == values_in(answer, values), (question, answer)
            named += bool(found)
    assert named > 2000


@every_intent
def test_the_slots_of_a_question_decide_its_answer(intent: Intent) -> None:
    questions = [*intent.questions.train, *intent.questions.held_out]
    assert {answer_for(intent, slots_in(q)) for q in questions} == set(intent.answers)
    if intent.clarification is not None:
        give, vague = intent.clarification.give, intent.clarification.vague
        for reply in give.train + give.held_out:
            assert answer_for(intent, slots_in(reply)) in intent.answers
        assert not any(slots_in(q) for q in (*vague.train, *vague.held_out))
    for follow_up in intent.follow_ups:
        phrases = (*follow_up.questions.train, *follow_up.questions.held_out, follow_up.answer)
        assert not any(slots_in(phrase) for phrase in phrases)


def test_both_splits_draw_on_all_slot_sets_of_an_intent() -> None:
    for intent in INTENTS:
        train = {slots_in(question) for question in intent.questions.train}
        held_out = {slots_in(question) for question in intent.questions.held_out}
        assert train == held_out, intent.name


def test_texts_are_clean() -> None:
    for text in texts(splits()[0]) + texts(splits()[1]):
        assert text.isascii()
        assert text == " ".join(text.split())
        assert not re.search(
            r"[{}]|\ba [aeiou]|\ban [^aeiou]|[.,?!] ?[.,?]", text, re.IGNORECASE
        ), text


def test_answers_are_short() -> None:
    for dialogue in [*splits()[0], *splits()[1]]:
        for message in dialogue.messages[1::2]:
            assert 12 <= len(message["content"].split()) <= 52


def test_customers_write_in_several_styles() -> None:
    questions = [dialogue.messages[0]["content"] for dialogue in splits()[0]]
    assert sum(question[0].islower() for question in questions) > 100
    assert sum("oder " in question or "numbr" in question for question in questions) > 10
    assert sum(question.startswith(("Hi", "Hello", "Good", "Dear")) for question in questions) > 500


def test_equal_seeds_give_equal_dialogues_and_others_give_others() -> None:
    assert generate(3) == generate(3)
    assert generate(3) != generate(4)


def test_written_files_hold_the_dialogues_and_the_labelled_questions(tmp_path: Path) -> None:
    paths = write(tmp_path / "new" / "folder")
    assert {name: path.name for name, path in paths.items()} == {
        "train": "support-train.jsonl",
        "test": "support-test.jsonl",
        "intents_train": "support-intents-train.jsonl",
        "intents_test": "support-intents-test.jsonl",
    }
    for dialogues, name in zip(splits(), ("train", "test"), strict=True):
        rows = [json.loads(line) for line in paths[name].read_text().splitlines()]
        labelled = [json.loads(line) for line in paths[f"intents_{name}"].read_text().splitlines()]
        assert rows == [{"messages": list(d.messages)} for d in dialogues]
        assert labelled == [
            {"text": d.messages[0]["content"], "label": d.intent} for d in dialogues
        ]


def digests(paths: dict[str, Path]) -> dict[str, str]:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_files_are_the_same_in_every_process(tmp_path: Path, hash_seed: str) -> None:
    here = write(tmp_path / "here")
    source = str(Path(luthier.__file__).parent.parent)
    code = "import sys, pathlib, luthier.demo.support as s; s.write(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "there")],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": source},
        check=True,
    )
    there = {name: tmp_path / "there" / path.name for name, path in here.items()}
    assert digests(there) == digests(here)
