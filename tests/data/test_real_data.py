"""Real data sets, where ``LUTHIER_DATA`` names their folder: read, recognised, split."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import DataError
from luthier.core.records import (
    Conversation,
    ConversationTree,
    Labelled,
    MultipleChoice,
    Preference,
    Prompt,
    Ranking,
    SourceTarget,
    Tagged,
    Text,
)
from luthier.data.recognise import read_records, recognise
from luthier.data.sources import read
from luthier.data.split import split

pytestmark = pytest.mark.skipif(
    not os.environ.get("LUTHIER_DATA"), reason="LUTHIER_DATA names no folder of real data sets"
)


def real(name: str) -> Path:
    path = Path(os.environ["LUTHIER_DATA"], name)
    if not path.exists():
        pytest.skip(f"LUTHIER_DATA holds no {name}")
    return path


@pytest.mark.parametrize(
    ("name", "rows", "said", "kind"),
    [
        ("banking77/train.csv", 10_003, "label (text='text', label='category')", Labelled),
        (
            "dolly_small/dolly_hhrlhf_train_small.jsonl",
            1_000,
            "prompt_response (prompt='prompt', response='response')",
            Conversation,
        ),
        (
            "gsm8k/test.jsonl",
            1_319,
            "prompt_response (prompt='question', response='answer')",
            Conversation,
        ),
        (
            "taskmaster4_coffee/dialogues.jsonl",
            3_710,
            "messages (messages='messages')",
            Conversation,
        ),
        ("corpus/dialogues.jsonl.xz", 12_174, "messages (messages='messages')", Conversation),
        (
            "self_instruct/seed_tasks.jsonl",
            175,
            "instruction (instruction='instruction', instances='instances')",
            Conversation,
        ),
        (
            "self_instruct/user_oriented_instructions.jsonl",
            252,
            "instruction (instruction='instruction', instances='instances')",
            Conversation,
        ),
        (
            "oasst_trees/en_100_tree.jsonl",
            100,
            "oasst (prompt='prompt'; trees with all their paths)",
            ConversationTree,
        ),
        ("wnut17/wnut17train.conll", 3_394, "tagged (tokens='tokens', tags='tags')", Tagged),
        ("wnut17/emerging.dev.conll", 1_009, "tagged (tokens='tokens', tags='tags')", Tagged),
        ("wnut17/emerging.test.annotated", 1_287, "tagged (tokens='tokens', tags='tags')", Tagged),
        (
            "wikigold/wikigold.conll.txt",
            1_696,
            "tagged (tokens='tokens', tags='tags'; IOB1 becomes IOB2)",
            Tagged,
        ),
        ("snips_nlu/train_AddToPlaylist_full.json", 1_942, "snips (data='data')", Tagged),
        (
            "scitldr/train.jsonl",
            1_992,
            "source_target (source='source', target='target')",
            SourceTarget,
        ),
        (
            "scitldr/test.jsonl",
            618,
            "source_target (source='source', target='target'; of several targets the first is "
            "taken)",
            SourceTarget,
        ),
        ("corpus/books.jsonl.xz", 143, "text (text='text')", Text),
        ("tinyshakespeare/input.txt", 1, "text (text='text')", Text),
    ],
)
def test_real_rows_become_records(name: str, rows: int, said: str, kind: type) -> None:
    (source,) = read(real(name))
    fmt, found = recognise(source.rows)
    records, skipped = read_records(source, fmt, {}, "refuse")
    assert (len(records), found, skipped) == (rows, said, [])
    assert all(isinstance(record, kind) for record in records)


def test_blank_stories_are_named_or_skipped() -> None:
    (source,) = read(real("corpus/stories.jsonl.xz"))
    fmt, _ = recognise(source.rows)
    with pytest.raises(DataError, match=r"stories\.jsonl\.xz:180: the text in 'text' is empty"):
        read_records(source, fmt, {}, "refuse")
    records, skipped = read_records(source, fmt, {}, "skip")
    assert (len(records), len(skipped)) == (3_053, 4)


def test_all_77_intents_stand_on_both_sides() -> None:
    (source,) = read(real("banking77/train.csv"))
    records, _ = read_records(source, recognise(source.rows)[0], {}, "refuse")
    sides = split(records, 0.1, 0)
    labels = [{getattr(records[i], "label", "") for i in side} for side in sides]
    assert [len(each) for each in labels] == [77, 77]
    assert abs(len(sides[1]) - 1_000) <= 1


def test_latin1_is_named_with_its_line_and_byte() -> None:
    path = real("snips_nlu/train_PlayMusic_full.json")
    with pytest.raises(DataError) as caught:
        read(path)
    (fault,) = caught.value.faults
    assert fault.place == f"{path}:9091"
    assert fault.message == "not UTF-8: byte 0xed at offset 150732 of the file"
    assert path.read_bytes()[150_732] == 0xED
    assert "iconv -f LATIN1" in fault.cure


def test_several_lists_in_one_object_are_named() -> None:
    with pytest.raises(DataError, match="'oos_val', 'val', 'train', 'oos_test'"):
        read(real("clinc150/data_full.json"))


@pytest.mark.parametrize(
    ("name", "form", "rows", "kind"),
    [
        ("tatoeba_eng_spa/spa.txt", "source_target", 30_000, SourceTarget),
        ("gsm8k/test.jsonl", "checkable", 1_319, Prompt),
        ("oasst_trees/en_100_tree.jsonl", {"kind": "oasst", "paths": "best"}, 100, Conversation),
        (
            "oasst_trees/en_100_tree.jsonl",
            {"kind": "oasst", "paths": "preferences"},
            212,
            Ranking,
        ),
    ],
)
def test_one_named_format_is_enough(name: str, form: Any, rows: int, kind: type) -> None:
    (source,) = read(real(name))
    fmt, _ = recognise(source.rows, form)
    records, skipped = read_records(source, fmt, {}, "refuse")
    assert (len(records), skipped) == (rows, [])
    assert all(isinstance(record, kind) for record in records)


def test_the_final_answers_of_gsm8k_are_numbers() -> None:
    (source,) = read(real("gsm8k/train.jsonl"))
    records, _ = read_records(source, recognise(source.rows, "checkable")[0], {}, "refuse")
    answers = [record.check["answer"] for record in records if isinstance(record, Prompt)]
    assert len(answers) == 7_473
    assert all(answer.replace(",", "").lstrip("-").replace(".", "").isdigit() for answer in answers)


@pytest.mark.parametrize(("part", "rows"), [("train", 15_000), ("val", 3_000), ("test", 4_500)])
def test_one_list_of_clinc150_is_named(part: str, rows: int) -> None:
    (source,) = read(f"{real('clinc150/data_full.json')}:{part}")
    fmt, said = recognise(source.rows, accept=(Labelled,))
    assert said == "label (text='column_1', label='column_2')"
    records, _ = read_records(source, fmt, {}, "refuse")
    assert len(records) == rows
    assert len({getattr(record, "label", "") for record in records}) == 150


def test_preferences_without_one_are_named_with_their_lines() -> None:
    path = real("hh_rlhf_helpful_base/helpful-base.test.jsonl.gz")
    (source,) = read(path)
    fmt, said = recognise(source.rows)
    words = "chosen='chosen', rejected='rejected'; the prompt is what both begin with"
    assert said == f"preference ({words})"
    records, skipped = read_records(source, fmt, {}, "skip")
    assert len(records) == 2_348
    assert all(isinstance(record, Preference) for record in records)
    lines = [(fault.place.rpartition(":")[2], fault.code) for fault in skipped]
    empty, equal = ("121", "741", "1215", "2064"), ("722", "2169")
    assert sorted(lines) == sorted([(n, "empty") for n in empty] + [(n, "equal") for n in equal])


def test_every_subject_of_mmlu() -> None:
    sources = read(real("mmlu_dev/dev"))
    assert len(sources) == 57
    records = []
    for source in sources:
        records += read_records(source, recognise(source.rows)[0], {}, "refuse")[0]
    assert len(records) == 285
    assert all(isinstance(record, MultipleChoice) for record in records)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("validate_GetWeather", "651: the span timeRange [40, 46) 'one pm' cuts"),
        ("validate_PlayMusic", "940: the span album [0, 11) 'Live In L.a' cuts"),
        ("validate_SearchScreeningEvent", "1633: the span movie_name [9, 21) 'Sexy Dance 2' cuts"),
    ],
)
def test_the_spans_of_snips_that_cut_a_word_are_named(name: str, place: str) -> None:
    path = real(f"snips_nlu/{name}.json")
    (source,) = read(path)
    records, (found,) = read_records(source, recognise(source.rows)[0], {}, "skip")
    assert len(records) == 99
    assert f"{found.place}: {found.message}".startswith(f"{path}:{place}")
