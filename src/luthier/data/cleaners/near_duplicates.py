"""Records that say nearly the same as an earlier one, dropped (MinHash, Broder 1997)."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.records import Record
from luthier.data.clusters import near_clusters


class Config(KindConfig):
    """Settings of nearly equal records: none."""

    kind: str = "near_duplicates"


class Cleaner:
    """The first record of each cluster stays; labels do not count."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """One record of each cluster."""
        roots = near_clusters(records)
        left = [record for i, record in enumerate(records) if roots[i] == i]
        return Cleaned(left, 0, len(records) - len(left))
