"""Unicode in its composed form (NFC), without byte-order marks and control characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.records import Record
from luthier.data.cleaners._texts import changed

#: Control characters but tab, line feed and carriage return; marks of direction; BOMs inside.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ufeff]"
)


class Config(KindConfig):
    """Settings of Unicode's normal forms."""

    kind: str = "unicode"
    form: Literal["NFC", "NFKC"] = "NFC"
    """NFKC also folds what only looks different (ligatures, full-width letters): it loses that."""


class Cleaner:
    """Normal forms of Unicode (Unicode Standard Annex 15)."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """Every text normalised."""
        form = self.config.form
        return changed(records, lambda text: unicodedata.normalize(form, _CONTROL.sub("", text)))
