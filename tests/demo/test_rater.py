"""The shop's rater, and the pairs that it ranks."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from luthier.core.records import Origin, Preference, Row
from luthier.data.formats.preference import Config, Format
from luthier.demo import preferences
from luthier.demo.phrases import Split
from luthier.demo.preferences import complete, pairs, polite, rating, short, versions

RIGHT = "I am sorry to hear that. Please reply with a photo and we will repair the chair for you."


def test_the_rater_likes_what_is_polite_short_and_complete() -> None:
    assert (polite(RIGHT), short(RIGHT), complete(RIGHT, RIGHT)) == (1.0, 1.0, 1.0)
    assert polite("We repair it.") == 0.5
    assert polite("Are you serious? Please reply with a photo.") == 0.0
    assert short(" ".join(["word"] * 75)) == 0.5
    assert short(" ".join(["word"] * 300)) == 0.0
    assert complete("photo chair", "photo, chair; sofa. Bed") == 0.5
    assert rating("no", RIGHT) == 1.5


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_right_answer_is_the_best_one(split: Split) -> None:
    made = versions(RIGHT, "The shop opens at nine.", split, Random(0))
    rated = [rating(text, RIGHT) for text in made]
    assert made[0] == RIGHT
    assert max(rated[1:]) < rated[0] == 3.0
    assert len(set(made)) == 5


def test_pairs_are_ranked_by_the_rater_and_the_same_each_time(tmp_path: Path) -> None:
    train, held_out = pairs()
    assert pairs()[1] == held_out
    assert pairs(1)[1] != held_out
    assert min(float(str(row["margin"])) for row in (*train, *held_out)) >= preferences.LEAST
    longer = sum(len(str(r["chosen"])) > len(str(r["rejected"])) for r in train) / len(train)
    assert 0.4 < longer < 0.6, "length tells nothing"
    first, second = (preferences.write(tmp_path / name) for name in ("a", "b"))
    for name in ("train", "test"):
        assert first[name].read_bytes() == second[name].read_bytes()
        assert first[name].name == f"support-preferences-{name}.jsonl"
    record = Format(Config()).read(Row(held_out[0], Origin("made", 1)))
    assert isinstance(record, Preference)
    assert record.margin == held_out[0]["margin"]


def test_held_out_answers_are_worse_in_words_never_seen() -> None:
    train, held_out = ("".join(str(row) for row in rows) for rows in pairs())
    for pool in (preferences.RUDE, preferences.FILLERS):
        assert all(phrase in train for phrase in pool["train"])
        assert not any(phrase in train for phrase in pool["held_out"])
        assert not any(phrase in held_out for phrase in pool["train"])
