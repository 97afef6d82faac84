"""One row in the light: its record, the text that the model reads, its tokens, its tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from luthier.core.codec import Codec
from luthier.core.contracts_tasks import Tasked
from luthier.core.errors import DataError, RecipeError
from luthier.core.marks import bare, mark, untasked
from luthier.core.recipe import Recipe
from luthier.core.records import Example, Record, Segment
from luthier.data.prepare import fitting
from luthier.inspection import learned
from luthier.pages import rendered
from luthier.preview import Preview, preview
from luthier.stages import alone, begun_tokenizer

#: What a token leaves of a letter that further tokens complete.
_HALF = "\ufffd"
#: Tokens that one letter can be divided into.
_MOST = 8


@dataclass(frozen=True)
class Token:
    """A token as it reads; of a letter divided into several tokens, all of them.

    Attributes:
        ids: as the model reads them, one unless they share a letter.
        text: what they spell.
        learned: whether the model learns to write it.
        special: whether it is a special token of the tokenizer.
    """

    ids: tuple[int, ...]
    text: str
    learned: bool
    special: bool


@dataclass(frozen=True)
class Branch:
    """A segment of an example.

    Attributes:
        number: its place.
        parent: the segment that it continues.
        stream: ``main``, or ``source`` for what an encoder-decoder's encoder reads.
        tokens: in order.
        size: how many, letters that are divided counted as often as they are.
        learned: how many of them are learned.
    """

    number: int
    parent: int | None
    stream: str
    tokens: tuple[Token, ...]
    size: int
    learned: int


@dataclass(frozen=True)
class Shown:
    """A row as training sees it.

    Attributes:
        origin: where it stands.
        side: ``train`` or ``validation``.
        kind: the record's name.
        fields: the record's own, those that are empty left out.
        label: what a classifier learns of it, in words; else empty.
        pieces: the examples that the model is given: one, or the windows of a long one.
        notices: what was cut, and what is worth knowing.
        said: how data and template were understood.
    """

    origin: str
    side: str
    kind: str
    fields: Mapping[str, Any]
    label: str
    pieces: tuple[tuple[Branch, ...], ...]
    notices: tuple[str, ...]
    said: tuple[str, ...]


def show(recipe: Recipe, row: str | None = None, stage: int = 1) -> Shown:
    """A row of a recipe's data as training would see it; no weight is loaded.

    Args:
        recipe: what ``luthier train`` would run.
        row: its line, or ``file:line`` where there are several; the first one if unset.
        stage: of a recipe with stages.

    Raises:
        RecipeError: there is no such stage.
        UserError: there is no such row, or training would refuse it.
    """
    seen = preview(alone(recipe, stage), begun_tokenizer(recipe, stage))
    side, record = _found(seen, row)
    example = seen.objective.encode(record, seen.codec)
    pieces, cut = fitting(example, seen.objective, seen.codec, seen.policy)
    notices = []
    if len(pieces) > 1:
        notices.append(f"{example.size:,} tokens, divided into {len(pieces)} windows")
    elif cut.tokens:
        notices.append(
            f"{cut.tokens:,} of {example.size:,} tokens are cut away, {cut.targets:,} of them "
            f"learned (data.overlong: {seen.policy})"
        )
    if not pieces:
        notices.append(f"dropped: it does not fit {seen.codec.max_length:,} tokens")
    return Shown(
        str(record.origin),
        side,
        type(record).__name__,
        {k: v for k, v in asdict(record).items() if k != "origin" and v not in (None, (), "", {})},
        _label(seen, example),
        tuple(tuple(_branches(piece, seen)) for piece in pieces),
        tuple(notices),
        tuple(seen.said),
    )


def page(shown: Shown) -> str:
    """A row as one self-contained HTML page."""
    return rendered("show.html.jinja", row=shown)


def _found(seen: Preview, row: str | None) -> tuple[str, Record]:
    """The record at a place, and its side of the split."""
    sides = [("train", seen.train.records)]
    if seen.held is not None:
        sides.append(("validation", seen.held.records))
    if row is None:
        return "train", min(seen.train.records, key=lambda r: (r.origin.source, r.origin.line))
    name, _, number = row.rpartition(":")
    if not number.isdigit():
        raise RecipeError(
            f"--row {row} is no line",
            cure="write --row 718, or --row train.jsonl:718",
            code="usage",
        )
    every = [(side, record) for side, records in sides for record in records]
    here = [each for each in every if _named(each[1].origin.source, name)]
    found = [each for each in here if each[1].origin.line == int(number)]
    found = [each for each in found if not mark(each[1].origin)] or found  # by name alone
    sources = sorted({record.origin.source for _, record in found})
    if len(sources) > 1:
        raise RecipeError(
            f"line {number} stands in {' and in '.join(sources)}",
            cure=f"say which: --row {sources[0]}:{number}",
            code="usage",
        )
    if found:
        return found[0]
    at = int(number)
    faults = [f for f in seen.faults if f.place.endswith(f":{number}") and _named(f.place, name)]
    if faults:
        raise DataError.of(faults)
    lines = sorted(
        {record.origin.line for _, record in here}, key=lambda line: (abs(line - at), line)
    )
    near = f"; the nearest is line {lines[0]:,}" if lines else ""
    raise DataError(f"no row begins at line {number}{near}", name, code="no-rows")


def _named(source: str, name: str) -> bool:
    """Whether a source goes by a name, its folders given or not."""
    plain = untasked(bare(source))
    ends = any(each == name or each.endswith(f"/{name}") for each in (source, plain))
    return not name or ends or f"{name}:" in source


def _label(seen: Preview, example: Example) -> str:
    config: Any = seen.recipe.objective
    if isinstance(seen.objective, Tasked):
        task, example = seen.objective.own(example)
        config = task.config
    table = example.targets.get("classification")
    if table is None or "label" not in table:
        return ""
    names = tuple(getattr(config, "classes", None) or ())
    return label_words(table["label"][0], names)


def label_words(label: Any, names: Sequence[str]) -> str:
    """A classifier's target: a class, several of them, or a number."""
    if label.ndim:
        if label.min(initial=0) < 0:
            return "(unknown)"
        said = [name for name, yes in zip(names, label, strict=True) if yes]
        return ", ".join(said) or "(none)"
    if label.dtype.kind == "i" and label < 0:
        return "(unknown)"
    return names[int(label)] if label.dtype.kind == "i" else f"{label:g}"


def _branches(example: Example, seen: Preview) -> Iterator[Branch]:
    marks = learned(example)
    special = frozenset(seen.codec.tokenizer.all_special_ids)
    starts = example.starts()
    for number, (segment, start) in enumerate(zip(example.segments, starts, strict=True)):
        own = marks[start : start + len(segment.tokens)].tolist()
        tokens = tuple(_tokens(segment, own, seen.codec, special))
        yield Branch(number, segment.parent, segment.stream, tokens, len(own), sum(own))


def _tokens(
    segment: Segment, marks: Sequence[bool], codec: Codec, special: frozenset[int]
) -> Iterator[Token]:
    """Tokens one by one; those that share a letter together.

    Each is decoded after the one before it: many tokenizers write a space only between words.
    """
    ids = segment.tokens.tolist()
    start = 0
    for stop in range(1, len(ids) + 1):
        before = codec.decode(ids[max(0, start - 1) : start], special=True)
        text = codec.decode(ids[max(0, start - 1) : stop], special=True)
        text = text.removeprefix(before) if text.startswith(before) else text
        ends = stop == len(ids) or marks[stop] != marks[start] or stop - start == _MOST
        if _HALF in text and not ends:
            continue
        yield Token(tuple(ids[start:stop]), text, marks[start], ids[start] in special)
        start = stop
