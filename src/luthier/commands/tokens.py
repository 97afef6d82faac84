"""An example as text in which what is learned stands out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from luthier.core.codec import Codec
    from luthier.core.records import Example

#: Characters of one run of tokens shown at its beginning and at its end.
_HEAD, _TAIL = 280, 120
#: Runs of tokens shown of one example.
_RUNS = 16
_LEARNED = "bold green"


def painted(example: Example, codec: Codec, colours: bool) -> Iterator[Text]:
    """One text a segment, its learned tokens green and bold, or in ``[[ ]]`` without colours."""
    from rich.text import Text

    from luthier.inspection import learned

    marks = learned(example)
    for number, (segment, start) in enumerate(zip(example.segments, example.starts(), strict=True)):
        text = Text()
        if len(example.segments) > 1:
            after = "" if segment.parent is None else f", after {segment.parent}"
            text.append(f"segment {number}{after}: ", style="dim italic")
        runs = list(_runs(segment.tokens.tolist(), marks[start : start + len(segment.tokens)]))
        for tokens, is_learned in runs[:_RUNS]:
            words = _shortened(codec.decode(tokens, special=True))
            if not is_learned:
                text.append(words, style="dim" if colours else "")
            elif colours:
                text.append(words, style=_LEARNED)
            else:
                text.append(f"[[{words}]]")
        if len(runs) > _RUNS:
            text.append(f" … and {len(runs) - _RUNS:,} more turns", style="dim italic")
        yield text


def _runs(tokens: list[int], marks: Iterable[Any]) -> Iterator[tuple[list[int], bool]]:
    run: list[int] = []
    last = False
    for token, mark in zip(tokens, marks, strict=True):
        if run and bool(mark) != last:
            yield run, last
            run = []
        run.append(token)
        last = bool(mark)
    if run:
        yield run, last


def _shortened(text: str) -> str:
    cut = len(text) - _HEAD - _TAIL
    if cut <= 40:
        return text
    return f"{text[:_HEAD]} … {cut:,} characters … {text[-_TAIL:]}"
