"""Sources and targets longer than they may be: the source's text is cut, and always counted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from luthier.core.codec import Codec
from luthier.core.errors import DataError
from luthier.core.records import Example, Turn
from luthier.data.length import POLICIES, Cut, dropped, kept_tokens, target_rows


def fit_pair(
    example: Example,
    limit: int,
    policy: str,
    bounds: tuple[int | None, int | None] = (None, None),
    frame: tuple[int, int] = (0, 0),
) -> tuple[list[Example], Cut]:
    """A source and its target, each within its bound.

    An encoder reads the source by itself; before a decoder source and target share the context.
    ``left`` and ``right`` take away the beginning or the end of the source's text. A target that
    is too long loses its end, and with it the end token, so that no model learns to stop in the
    middle of a sentence.

    Args:
        example: its first segment the source, its second the target.
        limit: tokens that the model can attend to.
        policy: one of :data:`luthier.data.length.POLICIES`; ``window`` refuses, for half a source
            has no half of a target.
        bounds: longest source and longest target, ``None`` where only ``limit`` counts.
        frame: tokens of the source before and after its text, which no cut removes.

    Raises:
        DataError: too long under ``refuse`` or ``window``.
    """
    assert policy in POLICIES, policy
    read, written = (len(segment.tokens) for segment in example.segments)
    apart = example.segments[0].stream == "source"
    room_target = min(limit, bounds[1] or limit)
    room = min(limit, bounds[0] or limit)
    if not apart:
        room = min(room, limit - min(written, room_target))
    if read <= room and written <= room_target:
        return [example], Cut()
    if policy in ("refuse", "window"):
        raise _refusal(example, (read, room), (written, room_target))
    if policy == "drop" or (read > room and room <= sum(frame)):
        return dropped(example)
    keep = np.ones(example.size, dtype=bool)
    if (excess := read - room) > 0:
        first = frame[0] if policy == "left" else read - frame[1] - excess
        keep[first : first + excess] = False
    keep[read + room_target :] = False
    shorter = kept_tokens(example, keep, at_home=False)
    if not target_rows(shorter):
        return dropped(example)
    lost = target_rows(example) - target_rows(shorter)
    return [shorter], Cut(examples=1, tokens=example.size - shorter.size, targets=lost)


@lru_cache(maxsize=4)
def source_frame(codec: Codec) -> tuple[int, int]:
    """How many tokens of every prompt stand before and after the text that is asked."""
    one, other = (codec.prompt((Turn("user", text),)) for text in ("x", "0"))
    before = _common(one, other)
    return before, _common(one[before:][::-1], other[before:][::-1])


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two runs begin with alike."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def _refusal(example: Example, source: tuple[int, int], target: tuple[int, int]) -> DataError:
    long = [
        f"{name} of {size:,} tokens where {room:,} fit"
        for name, (size, room) in (("a source", source), ("a target", target))
        if size > room
    ]
    return DataError(
        " and ".join(long),
        str(example.origin),
        "data.overlong: right, left or drop; or a larger data.max_length where the model allows it",
        "overlong",
    )
