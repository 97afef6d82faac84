"""Tags to entities and back, broken ones included: seqeval's reading on random sequences."""

from __future__ import annotations

import random
import warnings

import pytest

from luthier.core.tags import SCHEMES, Entity, entities, parts, types


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
def test_random_sequences_are_read_as_seqeval_reads_them(prefixes: str) -> None:
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in "AB")]
    draw = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3000):
            found = draw.choices(tags, k=draw.randint(1, 7))
            theirs = [
                Entity(start, end + 1, kind) for kind, start, end in seqeval.get_entities(found)
            ]
            assert entities(found) == theirs, found


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O I-A I-A O", [(1, 3, "A")]),
        ("B-A I-B I-B", [(0, 1, "A"), (1, 3, "B")]),
        ("I-A B-A I-A", [(0, 1, "A"), (1, 3, "A")]),
        ("E-A I-A S-A", [(0, 1, "A"), (1, 2, "A"), (2, 3, "A")]),
        ("NOUN VERB", []),
    ],
)
def test_what_follows_nothing_begins_an_entity(
    tags: str, spans: list[tuple[int, int, str]]
) -> None:
    assert entities(tags.split()) == [Entity(*span) for span in spans]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_entities_written_are_read_again(scheme: str) -> None:
    write, prefixes = SCHEMES[scheme]
    draw = random.Random(1)
    for _ in range(300):
        at, made = 0, []
        while at < 12:
            stop = at + draw.randint(1, 4)
            if draw.random() < 0.6:
                made.append(Entity(at, stop, draw.choice("AB")))
            at = stop
        tags = write(made, 16)
        assert entities(tags) == made
        assert {parts(tag)[0] for tag in tags if tag != "O"} <= set(prefixes)
        assert types(tags) == {each.type for each in made}
