"""Records that say the same as an earlier one, dropped."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.records import Labelled, Record
from luthier.data.cleaners._texts import kept
from luthier.data.contents import short_hash, whole


class Config(KindConfig):
    """Settings of equal records: none."""

    kind: str = "duplicates"


class Cleaner:
    """The first one stays. Case and white space do not count; a label does."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """One record of each sort."""
        seen: set[int] = set()

        def fresh(record: Record) -> bool:
            label = repr(record.label) if isinstance(record, Labelled) else ""
            key = short_hash(" ".join([*whole(record).casefold().split(), "\0", label]))
            known = key in seen
            seen.add(key)
            return not known

        return kept(records, fresh)
