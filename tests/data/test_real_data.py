"""Real data sets, where ``LUTHIER_DATA`` names their folder: read, recognised, split."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.core.records import Conversation, Labelled, Text
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
