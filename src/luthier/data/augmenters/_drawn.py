"""Draws that depend on the run's seed and on nothing but what they are drawn for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from luthier.core.records import Record


def generator(*parts: Any) -> random.Random:
    """A generator by (seed, row …), the same in every process."""
    text = repr(parts).encode("utf-8", "backslashreplace")
    return random.Random(blake2b(text, digest_size=16).digest())


def copies(
    records: Sequence[Record], times: int, count: int, *key: Any
) -> list[tuple[Record, int]]:
    """So many (record, number of the copy), in order: all, or an even draw of them."""
    total = len(records) * times
    chosen = range(total) if count >= total else generator("copies", *key).sample(
        range(total), count
    )  # fmt: skip
    return [(records[i // times], i % times) for i in sorted(chosen)]
