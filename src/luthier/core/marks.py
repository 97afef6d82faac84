"""Marks of rows, behind the name of the source they came of: who made them, and their task."""

from __future__ import annotations

import re
from dataclasses import replace

from luthier.core.records import Origin, Record

_MARK = re.compile(r" \(made by ([\w.]+)\)$")
_TASK = re.compile(r" \(task (\w+)\)$")


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


def with_task(source: str, task: str) -> str:
    """A source's name with the task that its rows are of.

    >>> with_task("a.csv", "intent")
    'a.csv (task intent)'
    """
    return f"{source} (task {task})"


def task(source: str) -> str:
    """The task that a source's rows are of; empty where none is said.

    >>> task("a.csv (task intent) (made by noise)"), task("a.csv")
    ('intent', '')
    """
    found = _TASK.search(bare(source))
    return found.group(1) if found else ""


def untasked(source: str) -> str:
    """A source's name without its task.

    >>> untasked("a.csv (task intent)")
    'a.csv'
    """
    return _TASK.sub("", source)
