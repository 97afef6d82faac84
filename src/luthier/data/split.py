"""Train and validation rows by content: the same rows on the same side, whatever their order."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from hashlib import blake2b

from luthier.core.errors import DataError
from luthier.core.records import Labelled, Record, SourceTarget

#: A group of rows that say the same: its keyed hash and the rows' indices.
_Group = tuple[bytes, list[int]]
_LABEL = "label:"


@dataclass(frozen=True)
class _Stratum:
    """Rows that the split divides among themselves."""

    name: str
    groups: list[_Group]

    @property
    def rows(self) -> int:
        """Rows of all groups."""
        return sum(len(indices) for _, indices in self.groups)


def split(
    records: Sequence[Record],
    share: float,
    seed: int,
    together: Sequence[Hashable] | None = None,
    sources: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:
    """Sets a share of the rows aside for validation.

    Rows are ranked by a keyed hash of their content within their stratum (their label where they
    have a single one, else their source) and the first ones of each are taken. Equal rows form
    one group that is never divided, and so do labelled rows of one text with different labels and
    pairs of one source with different targets.
    Every class with two different texts gives at least one row, so many rare classes make the
    share larger than asked. The result depends on neither row order nor process, and, without
    labels, on no other source.

    Args:
        records: what to split.
        share: between 0 (none) and 1, exclusive.
        seed: another one draws other rows.
        together: a key for each record; records of one key stay on one side as equal ones do.
        sources: the number of each record's source in a mixture, by which the share is taken in
            place of the file's name; of labelled rows, within each class.

    Returns:
        Indices to train on and to validate with, each in the original order.

    Raises:
        DataError: nothing would be left to train on, or two rows or more give nothing to
            validate with because they all say the same.
    """
    assert 0 <= share < 1, share
    if not records:
        raise DataError("there is no row to train on", code="no-rows")
    everything = list(range(len(records)))
    if share == 0 or len(records) == 1:
        return everything, []
    exact = Decimal(str(share))
    strata = _strata(records, seed, together, sources)
    labelled = any(stratum.name.startswith(_LABEL) for stratum in strata)
    chosen = _by_label(strata, exact) if labelled else _by_source(strata, exact)
    if not chosen:
        raise DataError(
            "no row can be set aside for validation: "
            + ("every class has a single text" if labelled else "all rows say the same"),
            cure="give `validation:` a file of its own, or 0",
            code="split",
        )
    return [i for i in everything if i not in chosen], sorted(chosen)


def _strata(
    records: Sequence[Record],
    seed: int,
    together: Sequence[Hashable] | None,
    sources: Sequence[int] | None,
) -> list[_Stratum]:
    """Strata in the order of their names, groups in the order of their hashes."""
    key = blake2b(str(seed).encode()).digest()
    hashes = [_hash(record, key) for record in records]
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(hashes if together is None else _joined(hashes, together)):
        groups[digest].append(index)
    members: dict[str, list[_Group]] = defaultdict(list)
    for digest in sorted(groups):
        # A group in several strata counts for the first by name, whichever row came first.
        name = min(_stratum(records[i], sources[i] if sources else None) for i in groups[digest])
        members[name].append((digest, groups[digest]))
    return [_Stratum(name, members[name]) for name in sorted(members)]


def _joined(hashes: Sequence[bytes], together: Sequence[Hashable]) -> list[bytes]:
    """The least hash of all that equal content or a common key links a record to."""
    parents = {digest: digest for digest in hashes}

    def root(digest: bytes) -> bytes:
        while parents[digest] != digest:
            parents[digest] = parents[parents[digest]]
            digest = parents[digest]
        return digest

    first: dict[Hashable, bytes] = {}
    for digest, key in zip(hashes, together, strict=True):
        low, high = sorted((root(digest), root(first.setdefault(key, digest))))
        parents[high] = low
    return [root(digest) for digest in hashes]


def _stratum(record: Record, source: int | None) -> str:
    if isinstance(record, Labelled) and isinstance(record.label, str):
        of = "" if source is None else f" of source {source}"
        return f"{_LABEL}{record.label}{of}"
    return f"source:{record.origin.source if source is None else source}"


def _hash(record: Record, key: bytes) -> bytes:
    """Of what a model is shown: a labelled row's text, a source, anything else's whole content."""
    learned = "label" if isinstance(record, Labelled) else ""
    learned = "target" if isinstance(record, SourceTarget) else learned
    left_out = ("origin", learned)
    content = [
        (field.name, getattr(record, field.name))
        for field in fields(record)
        if field.name not in left_out
    ]
    text = repr((type(record).__name__, _ordered(content)))
    return blake2b(text.encode("utf-8"), key=key, digest_size=16).digest()


def _ordered(value: object) -> object:
    """Mappings as sorted pairs: two that are equal must read the same."""
    if isinstance(value, Mapping):
        return sorted((repr(key), _ordered(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return [_ordered(inner) for inner in value]
    return value


def _by_source(strata: Sequence[_Stratum], share: Decimal) -> set[int]:
    """Rows of each source by itself, so that a source more moves no row of the others.

    Sources too small to give a row (a folder of documents) count as one together.
    """
    large = [stratum for stratum in strata if share * stratum.rows >= 1]
    small = _together([stratum for stratum in strata if share * stratum.rows < 1])
    chosen: set[int] = set()
    for stratum in [*large, small]:
        chosen.update(_take(stratum.groups, _rounded(share * stratum.rows)))
    if not chosen:
        whole = _together(strata)
        chosen.update(_take(whole.groups, max(1, _rounded(share * whole.rows))))
    return chosen


def _together(strata: Sequence[_Stratum]) -> _Stratum:
    return _Stratum("", sorted(group for stratum in strata for group in stratum.groups))


def _by_label(strata: Sequence[_Stratum], share: Decimal) -> set[int]:
    """Rows of each class: one at least, and what the total still lacks by largest remainder."""
    total = _rounded(share * sum(stratum.rows for stratum in strata))
    divisible = [stratum for stratum in strata if len(stratum.groups) > 1]
    exact = [share * stratum.rows for stratum in divisible]
    quotas = [max(1, math.floor(amount)) for amount in exact]
    lacking = max(0, total - sum(quotas))
    order = sorted(range(len(quotas)), key=lambda i: (quotas[i] - exact[i], divisible[i].name))
    for index in order[:lacking]:
        quotas[index] += 1
    chosen: set[int] = set()
    for stratum, quota in zip(divisible, quotas, strict=True):
        chosen.update(_take(stratum.groups, quota))
    return chosen


def _rounded(amount: Decimal) -> int:
    return math.floor(amount + Decimal("0.5"))


def _take(groups: Sequence[_Group], quota: int) -> list[int]:
    """Whole groups in order until the quota is met as nearly as they allow; one stays behind."""
    taken: list[int] = []
    left = len(groups)
    for _, indices in groups:
        short = quota - len(taken)
        if short <= 0 or left == 1:
            break
        if len(indices) - short <= short:
            taken.extend(indices)
            left -= 1
    if not taken and quota > 0 and len(groups) > 1:
        taken = list(min(groups, key=lambda group: (len(group[1]), group[0]))[1])
    return taken
