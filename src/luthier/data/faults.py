"""Faults of many rows, gathered: either one error that names the first ten, or rows skipped."""

from __future__ import annotations

from collections import deque

from luthier.core.errors import DataError, Fault

#: Faults that one error spells out; the rest are counted.
SHOWN = 10


class FaultLog:
    """Gathers the faults of a source's rows under the recipe's ``malformed`` policy.

    Attributes:
        count: faults seen so far.
    """

    def __init__(self, malformed: str) -> None:
        assert malformed in ("refuse", "skip"), malformed
        self.count = 0
        self._refuse = malformed == "refuse"
        self._kept: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        """Notes what is wrong with one row."""
        for fault in faults:
            self.count += 1
            if not self._refuse or len(self._kept) < SHOWN:
                self._kept.append(fault)

    def finish(self, rows: int) -> tuple[Fault, ...]:
        """The faults of the rows that were skipped.

        Args:
            rows: good rows that the source gave.

        Raises:
            DataError: there are faults and none is to be skipped, or no row is left.
        """
        if self.count and (self._refuse or not rows):
            raise DataError.of([*self._kept[:SHOWN], *self._rest()])
        return tuple(self._kept)

    def _rest(self) -> list[Fault]:
        more = self.count - SHOWN
        if more <= 0:
            return []
        rows = "row is" if more == 1 else "rows are"
        cure = "`malformed: skip` leaves such rows out and counts them" if self._refuse else ""
        return [Fault(f"{more} more {rows} wrong", cure=cure, code="more")]


class FaultQueue(FaultLog):
    """Faults for a reader that goes on: each is taken away in its turn, none is kept."""

    def __init__(self) -> None:
        super().__init__("skip")
        self._waiting: deque[Fault] = deque()

    def add(self, *faults: Fault) -> None:
        """Notes what is wrong with one row."""
        self.count += len(faults)
        self._waiting.extend(faults)

    def taken(self) -> list[Fault]:
        """The faults since the last call."""
        found = list(self._waiting)
        self._waiting.clear()
        return found
