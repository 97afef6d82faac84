"""Every check of the folder, as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from luthier.core import kinds
from luthier.core.findings import Finding, Findings
from luthier.core.workers import Crew
from luthier.data.checks._base import Check, Known, Seen
from luthier.data.contents import characters

FOLDER = "data/checks"

#: Rows, and about so many characters of them, that are looked at in one piece.
_ROWS, _CHARACTERS = 1_000, 1 << 20
#: A finding with the place of its row in a piece and the number of its check, by which they stand.
_Placed = tuple[int, int, Finding]
#: What no check found stands before what checks find at its row.
_BEFORE = -1


class Checks:
    """Shows each row to every check, and keeps what they find; ended as a context is.

    Args:
        known: what they are told before the first row.
        findings: where it is noted.
        workers: processes that look at rows.
    """

    def __init__(self, known: Known, findings: Findings, workers: int = 1) -> None:
        self._findings = findings
        self._checks: list[Check] = [each(known) for each in _classes()]
        self._crew = Crew(f"{__name__}:looking", None, workers)
        self._rows: list[Seen] = []
        self._found: list[_Placed] = []
        self._size = 0

    def see(self, seen: Seen) -> None:
        """One row."""
        self._rows.append(seen)
        self._size += 0 if seen.record is None else characters(seen.record)
        if len(self._rows) >= _ROWS or self._size >= _CHARACTERS:
            self._hand_on()

    def add(self, finding: Finding) -> None:
        """What was found before the next row is seen."""
        self._found.append((len(self._rows), _BEFORE, finding))

    def close(self, progress: Callable[[float, str], None]) -> None:
        """What all rows show together; told how far it is."""
        self._hand_on()
        for each in self._crew.rest():
            self._take(*each)
        for number, check in enumerate(self._checks):
            progress(number / len(self._checks), "comparing")
            for finding in check.close():
                self._findings.add(finding)
        progress(1.0, "comparing")

    def __enter__(self) -> Checks:
        return self

    def __exit__(self, *error: object) -> None:
        self._crew.__exit__(*error)

    def _hand_on(self) -> None:
        piece = (self._rows, self._found)
        self._rows, self._found, self._size = [], [], 0
        for each in self._crew.put(piece):
            self._take(*each)

    def _take(self, found: list[_Placed], digests: Sequence[Any]) -> None:
        """Notes what a piece showed, row by row, check by check."""
        for number, (check, digest) in enumerate(zip(self._checks, digests, strict=True)):
            if digest is not None:
                found += ((place, number, finding) for place, finding in check.take(digest))
        for _, _, finding in sorted(found, key=lambda one: one[:2]):
            self._findings.add(finding)


def looking(_told: None) -> Callable[[tuple[Sequence[Seen], Iterable[_Placed]]], Any]:
    """What looks at a piece: all that needs no other row, in any process."""
    checks = _classes()

    def look(piece: tuple[Sequence[Seen], Iterable[_Placed]]) -> tuple[list[_Placed], list[Any]]:
        rows, before = piece
        found = list(before)
        for number, check in enumerate(checks):
            for place, seen in enumerate(rows):
                found += ((place, number, finding) for finding in check.see(seen))
        return found, [check.digest(rows) for check in checks]

    return look


def _classes() -> list[type[Check]]:
    return [kinds.module(FOLDER, name).Check for name in kinds.names(FOLDER)]
