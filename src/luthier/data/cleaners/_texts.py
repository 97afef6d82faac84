"""What cleaners share that change texts, or drop records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luthier.core.contracts_data import Cleaned
from luthier.core.records import Record
from luthier.data.contents import mapped, whole


def changed(records: Sequence[Record], change: Callable[[str], str]) -> Cleaned:
    """Every text changed; a record that had a text and has none left is dropped."""
    kept: list[Record] = []
    count = 0
    for record in records:
        made = mapped(record, change)
        if made == record:
            kept.append(record)
            continue
        if whole(record).strip() and not whole(made).strip():
            continue
        kept.append(made)
        count += 1
    return Cleaned(kept, count, len(records) - len(kept))


def kept(records: Sequence[Record], keep: Callable[[Record], bool]) -> Cleaned:
    """The records that one wants."""
    left = [record for record in records if keep(record)]
    return Cleaned(left, 0, len(records) - len(left))
