"""White space: none at the ends of lines, one empty line at most, no odd kinds of space."""

from __future__ import annotations

import re
from collections.abc import Sequence

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.records import Record
from luthier.data.cleaners._texts import changed

_LINE_ENDS = re.compile("\r\n?|\u2028|\u0085")
_PARAGRAPHS = re.compile("\u2029")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_NOTHING = re.compile("[\u200b\u2060]")
_TRAILING = re.compile(r"[ \t]+(?=\n|$)")
_EMPTY = re.compile(r"\n{3,}")


class Config(KindConfig):
    """Settings of white space: none."""

    kind: str = "whitespace"


class Cleaner:
    """Indentation and single line ends stay: they may be code, or verse."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """Every text tidied."""
        return changed(records, tidied)


def tidied(text: str) -> str:
    r"""A text with plain white space.

    >>> tidied("a \u00a0 \r\n\n\n\nb\u200b ")
    'a\n\nb'
    """
    text = _PARAGRAPHS.sub("\n\n", _LINE_ENDS.sub("\n", text))
    text = _TRAILING.sub("", _SPACES.sub(" ", _NOTHING.sub("", text)))
    return _EMPTY.sub("\n\n", text).strip("\n ")
