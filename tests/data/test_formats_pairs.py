"""Pairs of texts that belong together, with and without hard negatives."""

from __future__ import annotations

from typing import Any

import pytest
from format_cases import ORIGIN, build, fault, read

from luthier.core.records import Pair, Row
from luthier.data.recognise import recognise


@pytest.mark.parametrize(
    ("fields", "negatives"),
    [
        ({"anchor": "a", "positive": "b"}, ()),
        ({"anchor": "a", "positive": "b", "negative": "c"}, ("c",)),
        ({"query": "a", "pos": "b", "neg": ["c", "d"]}, ("c", "d")),
        ({"query": "a", "passage": "b", "negative_1": "c", "negative_2": "d"}, ("c", "d")),
        ({"sentence1": "a", "sentence2": "b", "negatives": None}, ()),
    ],
)
def test_pairs_in_every_shape(fields: dict[str, Any], negatives: tuple[str, ...]) -> None:
    assert read("pairs", fields) == Pair(ORIGIN, "a", "b", negatives)
    fmt, words = recognise([Row(fields, ORIGIN)], accept=(Pair,))
    assert type(fmt) is type(build("pairs"))
    assert words.startswith("pairs (")


def test_two_sentences_with_a_label_are_no_pair() -> None:
    fields = {"sentence1": "a", "sentence2": "b", "label": "same"}
    assert build("pairs").recognise(fields) is None
    assert recognise([Row(fields, ORIGIN)])[1].startswith("label")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"anchor": "a"}, "missing"),
        ({"anchor": " ", "positive": "b"}, "empty"),
        ({"anchor": "a", "positive": "b", "negative": ["c", 3]}, "type"),
        ({"anchor": "a", "positive": "b", "negative": [""]}, "empty"),
    ],
)
def test_faults(fields: dict[str, Any], code: str) -> None:
    assert fault("pairs", fields).code == code
