"""Examples longer than the context: divided, cut, left out or refused, and always counted.

A cut is a choice of tokens that stay. Everything else follows from it: a target stays if its
position stays and so does the token that it predicts, and every column of its table with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.core.errors import DataError
from luthier.core.records import REFERENCES, Example, Ints, Segment, Table
from luthier.data.windows import windows

Mask = npt.NDArray[np.bool_]

POLICIES = ("window", "refuse", "left", "right", "drop")


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of overlong examples; adds up.

    Attributes:
        examples: examples divided or shortened.
        windows: windows that divided ones became.
        tokens: tokens removed, those of dropped examples included.
        targets: target rows lost, those of dropped examples included.
        dropped: examples left out: by policy, because nothing to learn remained, or because
            no cut makes them fit.
    """

    examples: int = 0
    windows: int = 0
    tokens: int = 0
    targets: int = 0
    dropped: int = 0

    def __add__(self, other: Cut) -> Cut:
        return Cut(
            self.examples + other.examples,
            self.windows + other.windows,
            self.tokens + other.tokens,
            self.targets + other.targets,
            self.dropped + other.dropped,
        )

    def __bool__(self) -> bool:
        return self != Cut()


def fit(
    example: Example,
    limit: int,
    policy: str,
    *,
    bos: int | None = None,
    independent: bool = False,
    frame: frozenset[int] = frozenset(),
    cuts: Callable[[Example], Ints] | None = None,
) -> tuple[list[Example], Cut]:
    """An example as examples whose every root-to-leaf path has at most ``limit`` tokens.

    ``window`` divides a single segment into consecutive windows; the target at a window's last
    position, which predicts the next window's first token, stays, so no target is lost (windows
    without any are left out). ``left`` shortens the root, ``right`` removes every token deeper
    than the limit, ``drop`` leaves the example out, ``refuse`` raises.

    Args:
        example: anything; one that fits is returned as it is.
        limit: tokens.
        policy: one of :data:`POLICIES`.
        bos: ``left`` keeps this token where the root begins with it.
        independent: whether the loss takes each leaf by itself, so that ``right`` may leave one
            out whole; otherwise (a pair) the example is dropped when a segment would be empty.
        frame: tokens around and between texts, which no cut removes; of several texts the
            longest is shortened first.
        cuts: of an objective that is :class:`~luthier.core.contracts_text.Windowed`, where a
            text may be cut; the frame is then around every window, and targets speak of the
            tokens at which they stand.

    Returns:
        The examples, and what was lost.

    Raises:
        DataError: the example is too long under ``refuse``, or has no windows under ``window``.
    """
    assert policy in POLICIES, policy
    assert limit >= 2, limit
    if example.depth() <= limit:
        return [example], Cut()
    if policy == "drop":
        return dropped(example)
    if policy == "window" and _dividable(example):
        pieces = _consecutive(example, limit)
        if cuts is not None:
            pieces = windows(example, limit, frame, cuts(example))
        return _windows(example, pieces)
    if policy in ("refuse", "window"):
        raise _refusal(example, limit)
    keep = _choice(example, limit, policy, bos, frame if _pooled(example) or cuts else None)
    if keep is None:
        return dropped(example)
    whole = all(keep[start:stop].any() for start, stop in _bounds(example))
    if not whole and not independent:
        return dropped(example)
    shorter = kept_tokens(example, keep, at_home=cuts is not None)
    lost = target_rows(example) - target_rows(shorter)
    if target_rows(example) and not target_rows(shorter):
        return dropped(example)
    return [shorter], Cut(examples=1, tokens=example.size - shorter.size, targets=lost)


def _choice(
    example: Example, limit: int, policy: str, bos: int | None, frame: frozenset[int] | None
) -> Mask | None:
    """The tokens that stay of a text in a frame, or of anything without one."""
    if frame is not None:
        return _framed(example, limit, policy, frame)
    return _left(example, limit, bos) if policy == "left" else _right(example, limit)


def _refusal(example: Example, limit: int) -> DataError:
    return DataError(
        f"this example has {example.depth()} tokens, but only {limit} fit",
        str(example.origin),
        "data.overlong: left, right or drop; or a larger data.max_length where the model allows it",
        "overlong",
    )


def dropped(example: Example) -> tuple[list[Example], Cut]:
    """Nothing of it, and what that costs."""
    return [], Cut(tokens=example.size, targets=target_rows(example), dropped=1)


def _dividable(example: Example) -> bool:
    tables = example.targets.values()
    return len(example.segments) == 1 and all(
        "position" in table and not {"segment", "example"} & set(table) for table in tables
    )


def _windows(example: Example, pieces: Sequence[Example]) -> tuple[list[Example], Cut]:
    """Those with something to learn, and what the others had."""
    if not pieces:
        return dropped(example)
    idle = [piece for piece in pieces if target_rows(example) and not target_rows(piece)]
    kept = [piece for piece in pieces if not target_rows(example) or target_rows(piece)]
    tokens = sum(piece.size for piece in idle)
    return kept, Cut(examples=1, windows=len(kept), tokens=tokens)


def _consecutive(example: Example, limit: int) -> list[Example]:
    return [
        _window(example, start, min(start + limit, example.size))
        for start in range(0, example.size, limit)
    ]


def _window(example: Example, start: int, stop: int) -> Example:
    targets = {}
    for name, table in example.targets.items():
        rows = (table["position"] >= start) & (table["position"] < stop)
        targets[name] = _select(table, rows)
        targets[name]["position"] = targets[name]["position"] - start
    segment = _sliced(example.segments[0], np.arange(start, stop))
    return replace(example, segments=(segment,), targets=targets)


def _pooled(example: Example) -> bool:
    """Whether targets read whole texts, none a place in them."""
    roots = all(segment.parent is None for segment in example.segments)
    return roots and not any("position" in t for t in example.targets.values())


def _framed(example: Example, limit: int, policy: str, frame: frozenset[int]) -> Mask | None:
    """Shortens the texts between the frame's tokens, the longest first; each segment by itself."""
    kept = [_framed_text(segment.tokens, limit, policy, frame) for segment in example.segments]
    made = [keep for keep in kept if keep is not None]
    return np.concatenate(made) if len(made) == len(kept) else None


def _framed_text(tokens: Ints, limit: int, policy: str, frame: frozenset[int]) -> Mask | None:
    keep = np.ones(len(tokens), dtype=bool)
    inside = np.flatnonzero(~np.isin(tokens, list(frame)))
    runs = [list(run) for run in np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)]
    excess = len(tokens) - limit
    if excess > 0 and excess >= len(inside):
        return None
    for _ in range(excess):
        longest = max(runs, key=len)
        keep[longest.pop(0 if policy == "left" else -1)] = False
    return keep


def _left(example: Example, limit: int, bos: int | None) -> Mask | None:
    """Shortens roots; ``None`` where a root is too short to take up the whole excess."""
    keep = np.ones(example.size, dtype=bool)
    depths = _depths(example)
    for index, (start, stop) in enumerate(_bounds(example)):
        if example.segments[index].parent is not None:
            continue
        below = [end for i, end in enumerate(depths) if example.ancestors(i)[0] == index]
        excess = max(below) - limit
        if excess <= 0:
            continue
        first = int(stop > start and example.segments[index].tokens[0] == bos)
        # The root's last token predicts its children's first ones.
        if first + excess >= stop - start:
            return None
        keep[start + first : start + first + excess] = False
    return keep


def _right(example: Example, limit: int) -> Mask:
    keep = np.ones(example.size, dtype=bool)
    for (start, stop), depth in zip(_bounds(example), _depths(example), strict=True):
        room = max(0, limit - (depth - (stop - start)))
        keep[start + room : stop] = False
    return keep


def kept_tokens(example: Example, keep: Mask, *, at_home: bool) -> Example:
    """The example with the chosen tokens only; segments left empty are taken out.

    ``at_home`` says that targets speak of the tokens at which they stand.
    """
    bounds = _bounds(example)
    alive = [bool(keep[start:stop].any()) for start, stop in bounds]
    renumbered = {old: new for new, old in enumerate(np.flatnonzero(alive).tolist())}
    segments = []
    for segment, (start, stop), lives in zip(example.segments, bounds, alive, strict=True):
        if lives:
            shorter = _sliced(segment, np.flatnonzero(keep[start:stop]))
            parent = None if segment.parent is None else renumbered[segment.parent]
            source = None if segment.source is None else renumbered[segment.source]
            segments.append(replace(shorter, parent=parent, source=source))
    places = np.cumsum(keep) - 1
    numbers = np.array([renumbered.get(i, -1) for i in range(len(alive))], dtype=np.int64)
    targets = {}
    for name, table in example.targets.items():
        rows = _staying(example, table, keep, np.array(alive), at_home=at_home)
        chosen = _select(table, rows)
        if "position" in table:
            chosen["position"] = places[chosen["position"]]
        if "segment" in table:
            chosen["segment"] = numbers[chosen["segment"]]
        targets[name] = chosen
    return replace(example, segments=tuple(segments), targets=targets)


def _staying(example: Example, table: Table, keep: Mask, alive: Mask, *, at_home: bool) -> Mask:
    """Which rows of a table stay."""
    rows = np.ones(_length(table), dtype=bool)
    if "segment" in table:
        rows &= alive[table["segment"]]
    if "position" in table:
        rows &= keep[table["position"]]
        if "token" in table and not at_home:
            predicted = _predicted(example, table)
            rows &= (predicted < 0) | keep[predicted]
    return rows


def _predicted(example: Example, table: Table) -> Ints:
    """Index of the token that each row predicts, -1 where it predicts none that is there.

    Inside a segment that is the next token. A segment's last token predicts the first token of
    each of its children; those stand at one depth, so any of them with the right token tells
    whether the row stays.
    """
    tokens = np.concatenate([segment.tokens for segment in example.segments])
    bounds = _bounds(example)
    position: Ints = np.asarray(table["position"], dtype=np.int64)
    successor = np.arange(1, example.size + 1)
    heads: dict[tuple[int, int], int] = {}
    for segment, (start, stop) in zip(example.segments, bounds, strict=True):
        if stop > start:
            successor[stop - 1] = -1
            if segment.parent is not None:
                heads[bounds[segment.parent][1] - 1, int(tokens[start])] = start
    predicted: Ints = successor[position].astype(np.int64)
    token = np.asarray(table["token"])
    predicted[(predicted >= 0) & (tokens[predicted] != token)] = -1
    for row in np.flatnonzero(np.isin(position, [place for place, _ in heads])).tolist():
        predicted[row] = heads.get((int(position[row]), int(token[row])), -1)
    return predicted


def _select(table: Table, rows: Mask) -> dict[str, npt.NDArray[Any]]:
    return {name: column[rows] for name, column in table.items()}


def _sliced(segment: Segment, index: Ints) -> Segment:
    types = segment.token_types
    return replace(
        segment,
        tokens=segment.tokens[index],
        token_types=None if types is None else types[index],
    )


def _bounds(example: Example) -> list[tuple[int, int]]:
    return [
        (start, start + len(segment.tokens))
        for start, segment in zip(example.starts(), example.segments, strict=True)
    ]


def _depths(example: Example) -> list[int]:
    """Tokens from the root to each segment's end."""
    ends: list[int] = []
    for segment in example.segments:
        before = 0 if segment.parent is None else ends[segment.parent]
        ends.append(before + len(segment.tokens))
    return ends


def _length(table: Mapping[str, npt.NDArray[Any]]) -> int:
    return len(next(iter(table.values()))) if table else 0


def learned_rows(example: Example) -> int:
    """Learned tokens of a language model; else rows of all of its tables."""
    table = example.targets.get("lm")
    return target_rows(example) if table is None else _length(table)


def target_rows(example: Example) -> int:
    """Rows of all of its tables."""
    return sum(_length(table) for table in example.targets.values())


assert set(REFERENCES) == {"position", "segment", "example"}, "a reference that no cut keeps right"
