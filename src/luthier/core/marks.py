"""The mark of rows that no one wrote: it stands behind the name of the source they came of."""

from __future__ import annotations

import re
from dataclasses import replace

from luthier.core.records import Origin, Record

_MARK = re.compile(r" \(made by ([\w.]+)\)$")


def marked(record: Record, kind: str) -> Record:
    """A record that an augmenter of this kind made; it keeps the line of the row it came of."""
    origin = Origin(f"{record.origin.source} (made by {kind})", record.origin.line)
    return replace(record, origin=origin)


def mark(origin: Origin) -> str:
    """The kind of augmenter that made a row; empty of a real one.

    >>> mark(Origin("a.csv (made by noise)", 3)), mark(Origin("a.csv", 3))
    ('noise', '')
    """
    found = _MARK.search(origin.source)
    return found.group(1) if found else ""


def bare(source: str) -> str:
    """A source's name without the mark.

    >>> bare("a.csv (made by noise)")
    'a.csv'
    """
    return _MARK.sub("", source)
