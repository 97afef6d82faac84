"""The check before training: what :mod:`luthier.data.check` looks for, in records that are read.

Reading has refused what cannot be read, and encoding refuses what cannot be put into tokens; this
is what only the records show, one by one and beside each other.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from luthier.core import cache
from luthier.core.errors import DataError, Fault
from luthier.core.findings import Findings
from luthier.data.checks._all import Checks
from luthier.data.checks._base import TRAIN, Known, Places, Seen
from luthier.data.parts import Part

Say = Callable[[str], None]

#: Raised whenever a check finds more, or less, than it did.
_VERSION = 1
_FILE = "findings.json"
#: Errors of one code that a refusal spells out.
_EACH = 3
_ALL = "luthier data check --recipe RECIPE lists them all; data.check=warn trains all the same"


def vet(
    train: Part, held: Part | None, share: float, classes: Sequence[str], workers: int = 1
) -> Findings:
    """What is wrong with the records of a run; found once, and kept in the cache.

    Args:
        train: what is learned from.
        held: what is measured with.
        share: of the rows that ``held`` was drawn as; 0 where it came from a source of its own.
        classes: that the recipe names; empty where it names none.
        workers: processes that look at records, once there are many.
    """
    sides = [(TRAIN, train), *([("validation", held)] if held else [])]
    named = [(name, part.real_fingerprint, part.sources) for name, part in sides]
    place = cache.place("checks", cache.key(_VERSION, named, share, list(classes)))
    if (place / _FILE).is_file():
        return Findings.of(json.loads((place / _FILE).read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory(prefix="luthier-check-") as scratch:
        known = Known(Places(), Path(scratch), True, share, tuple(classes))
        found = _seen(sides, known, workers)
    with cache.made(place) as folder:
        (folder / _FILE).write_text(json.dumps(found.plain()), encoding="utf-8")
    return found


def _seen(sides: Sequence[tuple[str, Part]], known: Known, workers: int) -> Findings:
    findings, places = Findings(), known.places
    with Checks(known, findings, workers) as checks:
        for name, part in sides:
            for record in part.real.records:
                if not places.sources or places.sources[-1] != record.origin.source:
                    places.sources.append(record.origin.source)
                number = places.add(record.origin.line, name)
                checks.see(Seen(record.origin, record, number, name))
        checks.close(lambda _share, _doing: None)
    return findings


def settle(found: Findings, mode: Literal["refuse", "warn"], say: Say) -> None:
    """Says what was found, a line a code; errors end it where the recipe says so.

    Raises:
        DataError: there are errors, under ``refuse``.
    """
    for kept, total in found.groups():
        if kept[0].severity == "warning" or mode == "warn":
            more = f" and {total - 1:,} more" if total > 1 else ""
            say(f"{kept[0].head}{more}  {kept[0].message}")
    if found.warnings and not found.errors:
        say("luthier data check --recipe RECIPE lists all warnings with their cures")
    if found.errors and mode == "refuse":
        raise DataError.of(_faults(found))


def _faults(found: Findings) -> Iterable[Fault]:
    """Some of each code, its cure at the last of them, and how many more there are."""
    errors = [kept for kept, _ in found.groups() if kept[0].severity == "error"]
    shown = 0
    for kept in errors:
        several = kept[:_EACH]
        shown += len(several)
        for number, one in enumerate(several, start=1):
            cure = one.cure if number == len(several) else ""
            yield Fault(f"{one.code}: {one.message}", one.place, cure, one.code)
    left = found.errors - shown
    message = f"… and {left:,} more errors in the data" if left else "training is refused"
    yield Fault(message, cure=_ALL)
