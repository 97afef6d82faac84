"""A preference for length: answers that are chosen nearly always because they are longer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from luthier.core.findings import Code, Finding
from luthier.core.records import Preference
from luthier.data.checks._base import Check as Base
from luthier.data.checks._base import Known, Seen

BIAS = Code(
    "D090",
    "warning",
    "chosen nearly always longer than rejected (length bias)",
    "a model may learn to write more: add pairs with a short answer preferred",
)
_PAIRS, _SHARE = 20, 0.9


class Check(Base):
    """See the module; a pair of equal answers, or of two prompts, is refused by its format."""

    codes: ClassVar[tuple[Code, ...]] = (BIAS,)

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._pairs: Counter[str] = Counter()
        self._longer: Counter[str] = Counter()

    @classmethod
    def digest(cls, rows: Sequence[Seen]) -> Any:
        """Pairs of each source, and those whose chosen answer is the longer one."""
        pairs: Counter[str] = Counter()
        longer: Counter[str] = Counter()
        for seen in rows:
            if isinstance(seen.record, Preference):
                chosen, rejected = seen.answers
                pairs[seen.origin.source] += 1
                longer[seen.origin.source] += len(chosen) > len(rejected)
        return pairs, longer

    def take(self, digest: Any) -> Iterable[tuple[int, Finding]]:
        """Counts them."""
        pairs, longer = digest
        self._pairs.update(pairs)
        self._longer.update(longer)
        return ()

    def close(self) -> Iterable[Finding]:
        """The share of pairs whose chosen answer is the longer one."""
        for source, pairs in self._pairs.items():
            share = self._longer[source] / pairs
            if pairs >= _PAIRS and share >= _SHARE:
                yield BIAS.at(source, f"chosen is longer than rejected in {share:.0%} of the pairs")
