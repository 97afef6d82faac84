"""Every check of the folder, as one."""

from __future__ import annotations

from collections.abc import Callable

from luthier.core import kinds
from luthier.core.findings import Findings
from luthier.data.checks._base import Check, Known, Seen

FOLDER = "data/checks"


class Checks:
    """Shows each row to every check, and keeps what they find.

    Args:
        known: what they are told before the first row.
        findings: where it is noted.
    """

    def __init__(self, known: Known, findings: Findings) -> None:
        self._findings = findings
        self._checks: list[Check] = [
            kinds.module(FOLDER, name).Check(known) for name in kinds.names(FOLDER)
        ]

    def see(self, seen: Seen) -> None:
        """One row."""
        for each in self._checks:
            for finding in each.see(seen):
                self._findings.add(finding)

    def close(self, progress: Callable[[float, str], None]) -> None:
        """What all rows show together; told how far it is."""
        for number, each in enumerate(self._checks):
            progress(number / len(self._checks), "comparing")
            for finding in each.close():
                self._findings.add(finding)
        progress(1.0, "comparing")
