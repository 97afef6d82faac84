"""What of a record a model is shown, and what it would learn."""

from __future__ import annotations

from luthier.core.records import Origin, Ranking, Thumb, Turn
from luthier.data.contents import answers, prompt, whole

WHERE = Origin("a.jsonl", 1)
ASKED, GOOD, BAD = (
    (Turn("user", "Why?"),),
    (Turn("assistant", "So."),),
    (Turn("assistant", "No"),),
)


def test_judged_answers_are_no_part_of_the_prompt() -> None:
    thumb = Thumb(WHERE, ASKED, GOOD, True)
    ranking = Ranking(WHERE, ASKED, (GOOD, BAD))
    assert [prompt(record) for record in (thumb, ranking)] == ["Why?", "Why?"]
    assert [answers(record) for record in (thumb, ranking)] == [("So.",), ("So.", "No")]
    assert [whole(record) for record in (thumb, ranking)] == ["Why?\nSo.", "Why?\nSo.\nNo"]
