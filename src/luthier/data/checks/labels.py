"""Labels against each other: unknown ones, rare ones, missing ones, predictable ones."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from luthier.core.errors import nearest
from luthier.core.findings import Code, Finding
from luthier.core.records import Labelled, Tagged
from luthier.core.tags import types
from luthier.data.checks._base import TRAIN, Known, Seen
from luthier.data.checks._base import Check as Base

UNKNOWN = Code(
    "D020",
    "error",
    "label outside the label set",
    "mend its spelling, or give the training rows some of its class",
)
IMBALANCE = Code(
    "D060",
    "warning",
    "label imbalance over 1:10",
    "collect more rows of the rare classes, or take fewer of the frequent ones",
)
RARE = Code(
    "D061",
    "warning",
    "a class with fewer rows than the split needs",
    "a class needs a text to learn from and another to be measured on",
)
ABSENT = Code(
    "D062",
    "warning",
    "a class missing from validation",
    "nothing will be known of how well it is told: move some of its rows over",
)
LENGTH = Code(
    "D064",
    "warning",
    "label predictable from the text's length alone",
    "a model may learn to count: balance the lengths of the classes",
)
_MOST = 10.0
_DECIMAL = re.compile(r"[-+]?\d*\.\d+")
#: What stands for the length of a row whose classes are types of entities.
_ENTITIES = -1
#: Rows below which nothing is said about lengths.
_ENOUGH = 40
_BINS = 10
#: Share of the room above guessing the largest class that lengths must fill.
_GAIN = 0.3


class Check(Base):
    """See the module."""

    codes: ClassVar[tuple[Code, ...]] = (UNKNOWN, IMBALANCE, RARE, ABSENT, LENGTH)

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._types: dict[str, set[str]] = defaultdict(set)
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._numbers: dict[str, int] = {}
        self._rows = array("I")
        self._label = array("I")
        self._length = array("I")

    @classmethod
    def digest(cls, rows: Sequence[Seen]) -> Any:
        """Of rows with classes: place, number, split, the classes, the only one, the length."""
        found: list[tuple[int, int, str, Sequence[str], str | None, int]] = []
        for place, seen in enumerate(rows):
            if isinstance(seen.record, Tagged):
                entities = sorted(types(seen.record.tags))
                found.append((place, seen.number, seen.split, entities, None, _ENTITIES))
                continue
            labels = seen.record.label if isinstance(seen.record, Labelled) else ()
            names = (labels,) if isinstance(labels, str) else labels
            if not names or isinstance(names, float) or any(map(_DECIMAL.fullmatch, names)):
                continue  # numbers to be predicted; a CSV file has them as text
            length = 0 if seen.label is None else min(len(seen.whole), 2**31)
            found.append((place, seen.number, seen.split, names, seen.label, length))
        return found

    def take(self, digest: Any) -> Iterable[tuple[int, Finding]]:
        """A label that the training rows, or the recipe, do not have."""
        for place, number, split, names, label, length in digest:
            if length == _ENTITIES:
                for finding in self._entities(self.known.places.at(number), split, set(names)):
                    yield place, finding
                continue
            for name in names:
                allowed = self._allowed(split)
                if allowed and name not in allowed:
                    message = f"the label '{name}' is not in the label set"
                    at = self.known.places.at(number)
                    yield place, UNKNOWN.at(at, message, nearest(name, allowed))
                self._counts[split][name] += 1
            if label is not None:
                self._rows.append(number)
                self._label.append(self._numbers.setdefault(label, len(self._numbers)))
                self._length.append(length)

    def _entities(self, at: str, split: str, found: set[str]) -> Iterable[Finding]:
        """A type of entities that the training rows, or the recipe, do not have."""
        named = self.known.splits_known and split != TRAIN and TRAIN in self._types
        allowed = types(self.known.classes) or (self._types[TRAIN] if named else set())
        for name in sorted(found - allowed) if allowed else ():
            message = f"no training row has an entity of type '{name}'"
            yield UNKNOWN.at(at, message, nearest(name, allowed))
        self._types[split] |= found

    def close(self) -> Iterable[Finding]:
        """What the counts of each class show."""
        places = self.known.places
        self._recount()
        trained = self._counts.get(TRAIN, Counter()) if self.known.splits_known else None
        for split, counts in self._counts.items():
            file = places.file_of(split)
            most, least = max(counts, key=lambda n: counts[n]), min(counts, key=lambda n: counts[n])
            if counts[most] > _MOST * counts[least] and split in (TRAIN, *self._unnamed()):
                yield IMBALANCE.at(
                    file,
                    f"{counts[most]:,} rows of '{most}', {counts[least]:,} of '{least}'"
                    f" (1:{counts[most] / counts[least]:.0f})",
                )
            if trained and split.startswith("valid"):
                for name in sorted(set(trained) - set(counts)):
                    yield ABSENT.at(file, f"no row of the class '{name}' is in validation")
        yield from self._rare()
        yield from self._by_length()

    def _allowed(self, split: str) -> Iterable[str]:
        if self.known.classes:
            return self.known.classes
        named = self.known.splits_known and split != TRAIN
        return self._counts[TRAIN] if named and TRAIN in self._counts else ()

    def _unnamed(self) -> Iterable[str]:
        return () if self.known.splits_known else list(self._counts)

    def _recount(self) -> None:
        """Counts by the split that rows ended up in, where a share was held out afterwards."""
        if not self.known.held_out or len(self._rows) == 0:
            return
        names = list(self._numbers)
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for row, label in zip(self._rows, self._label, strict=True):
            counts[self.known.places.split(row)][names[label]] += 1
        self._counts = counts

    def _rare(self) -> Iterable[Finding]:
        """Classes of a single row, where a share of the rows is to be held out."""
        if not self.known.held_out:
            return
        totals: Counter[str] = Counter()
        for counts in self._counts.values():
            totals.update(counts)
        names = list(self._numbers)
        single = {self._numbers[name] for name, count in totals.items() if count == 1} & {
            *range(len(names))
        }
        for row, label in zip(self._rows, self._label, strict=True):
            if label in single:
                yield RARE.at(
                    self.known.places.at(row), f"this is the only row of the class '{names[label]}'"
                )

    def _by_length(self) -> Iterable[Finding]:
        """Majority class of each tenth of lengths, learned on even rows, tried on odd ones."""
        labels = np.array(self._label, dtype=np.int64)
        if len(labels) < _ENOUGH or len(self._numbers) < 2:
            return
        lengths = np.array(self._length, dtype=np.int64)
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _BINS + 1)[1:-1]))
        bins, order = np.digitize(lengths, edges), np.argsort(lengths, kind="stable")
        half = np.zeros(len(labels), dtype=bool)
        half[order[::2]] = True
        guess = np.zeros(len(edges) + 1, dtype=np.int64)
        for each in range(len(guess)):
            inside = labels[half & (bins == each)]
            guess[each] = np.bincount(inside).argmax() if len(inside) else 0
        tried = labels[~half]
        right = float((guess[bins[~half]] == tried).mean())
        base = float(np.bincount(tried).max() / len(tried))
        if base < 1 and (right - base) / (1 - base) >= _GAIN:
            yield LENGTH.at(
                self.known.places.at(int(self._rows[0])).rpartition(":")[0],
                f"the length alone tells the label of {right:.0%} of the rows"
                f" (the largest class is {base:.0%})",
            )
