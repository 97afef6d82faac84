"""Preferences: pairs that prefer nothing, pairs of two prompts, and a bias to length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from luthier.core.findings import Code, Finding
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Known, Seen
from luthier.data.checks.reading import PROMPTS

EQUAL = Code(
    "D022",
    "error",
    "chosen equals rejected",
    "there is nothing to prefer: take the row out",
)
BIAS = Code(
    "D090",
    "warning",
    "chosen nearly always longer than rejected (length bias)",
    "a model may learn to write more: add pairs with a short answer preferred",
)
_PAIRS, _SHARE = 20, 0.9
_MARKS = ("\n\nHuman:", "\n\nAssistant:")


class Check(Base):
    """Looks at the columns ``chosen`` and ``rejected`` themselves, whatever the format."""

    codes: ClassVar[tuple[Code, ...]] = (EQUAL, BIAS)

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._pairs: dict[str, int] = {}
        self._longer: dict[str, int] = {}

    def see(self, seen: Seen) -> Iterable[Finding]:
        """The two answers of a row, and the turns before them where they bring their own."""
        fields = seen.row.fields
        if "chosen" not in fields or "rejected" not in fields:
            return
        chosen, rejected = _split(fields["chosen"]), _split(fields["rejected"])
        if chosen is None or rejected is None:
            return
        if chosen[0] != rejected[0]:
            yield PROMPTS.at(seen.place, "chosen and rejected follow different prompts")
        elif _plain(chosen[1]) == _plain(rejected[1]):
            yield EQUAL.at(seen.place)
        else:
            source = seen.row.origin.source
            self._pairs[source] = self._pairs.get(source, 0) + 1
            longer = len(chosen[1]) > len(rejected[1])
            self._longer[source] = self._longer.get(source, 0) + longer

    def close(self) -> Iterable[Finding]:
        """The share of pairs whose chosen answer is the longer one."""
        for source, pairs in self._pairs.items():
            share = self._longer[source] / pairs
            if pairs >= _PAIRS and share >= _SHARE:
                yield BIAS.at(source, f"chosen is longer than rejected in {share:.0%} of the pairs")


def _split(value: Any) -> tuple[tuple[str, ...], str] | None:
    """The turns before the last answer, and it; ``None`` for what is no text and no messages."""
    if isinstance(value, str):
        head, mark, last = value.rpartition(_MARKS[1])
        whole = value.startswith(_MARKS[0]) and mark
        return ((_plain(head),), last) if whole else ((), value)
    if not isinstance(value, Sequence) or not value:
        return None
    turns = [_content(each) for each in value]
    return (tuple(map(_plain, turns[:-1])), turns[-1])


def _content(message: Any) -> str:
    if not isinstance(message, Mapping):
        return str(message)
    return str(message.get("content", message.get("value", "")))


def _plain(text: str) -> str:
    return " ".join(text.split())
