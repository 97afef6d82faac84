"""E-mail addresses, phone and card numbers and keys that look secret, masked."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.records import Record
from luthier.data.cleaners._texts import changed
from luthier.data.personal import masked_text


class Config(KindConfig):
    """Settings of masking: none."""

    kind: str = "personal"


class Cleaner:
    """Each becomes a word in brackets, ``[email]``: what the check finds, and nothing else."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """Every text masked."""
        return changed(records, masked_text)
