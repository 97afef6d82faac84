"""Tags taken out, characters that HTML spells put in."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from html.parser import HTMLParser

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.records import Record
from luthier.data.cleaners._texts import changed

#: After these a line ends.
_BLOCKS = frozenset(
    ("br", "p", "div", "li", "tr", "table", "ul", "ol", "blockquote", "h1", "h2", "h3", "h4", "h5")
)
#: What stands in these is no text.
_HIDDEN = frozenset(("script", "style"))
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>|<!--")
_CHARACTER = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")


class Config(KindConfig):
    """Settings of HTML: none."""

    kind: str = "html"


class Cleaner:
    """Text that has neither a tag nor a spelt character is left as it is.

    Not for rows about HTML: their tags are the text.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """Every text without tags."""
        return changed(records, plain)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _HIDDEN
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _HIDDEN))
        if tag in _BLOCKS - {"br"}:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def plain(text: str) -> str:
    r"""A text without HTML.

    >>> plain("<p>Salt &amp; pepper</p><p>1 < 2</p>")
    'Salt & pepper\n\n1 < 2'
    >>> plain("a < b and b > c")
    'a < b and b > c'
    """
    if not _TAG.search(text):
        return html.unescape(text) if _CHARACTER.search(text) else text
    parser = _Text()
    parser.feed(text)
    parser.close()
    return "".join(parser.parts).strip("\n")
