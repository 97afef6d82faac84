"""The rows that stand out most: by length, by their answer, by what is wrong with them."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from luthier.core.records import Preference, Ranking, Record, Text
from luthier.data.contents import answers, prompt, short_hash
from luthier.data_report.figures import Worst
from luthier.data_report.texts import Texts

#: Rows of each kind.
_SHOWN = 5


def worst(
    records: Sequence[Record],
    sizes: Mapping[str, int],
    codes: Mapping[str, Sequence[str]],
    texts: Texts,
) -> tuple[Worst, ...]:
    """Five rows of each kind.

    Args:
        records: all of them.
        sizes: tokens of each row that was measured, by its place.
        codes: what was found at each row, by its place.
        texts: quotes them.
    """
    return (
        _longest(records, sizes, texts),
        _shortest(records, texts),
        _repeated(records, texts),
        _faulty(records, codes, texts),
    )


def _longest(records: Sequence[Record], sizes: Mapping[str, int], texts: Texts) -> Worst:
    measured = [(sizes[place], r) for r in records if (place := str(r.origin)) in sizes]
    found = heapq.nlargest(_SHOWN, measured, key=lambda each: each[0])
    rows = tuple(texts.excerpt(record, f"{size:,} tokens") for size, record in found)
    return Worst("Longest", rows, "No row could be put into tokens.")


def _shortest(records: Sequence[Record], texts: Texts) -> Worst:
    said = [(min(own, key=len), r) for r in records if (own := _own(r))]
    found = heapq.nsmallest(_SHOWN, said, key=lambda each: len(each[0]))
    rows = tuple(
        texts.excerpt(record, f"{len(answer):,} characters", _with_prompt(answer, record))
        for answer, record in found
    )
    return Worst("Shortest answer", rows, "These rows have no answers.")


def _repeated(records: Sequence[Record], texts: Texts) -> Worst:
    having: dict[int, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        own = _own(record)
        if len(own) == 1 and not isinstance(record, Text):
            having[short_hash(" ".join(own[0].lower().split()))].append(number)
    several = [numbers for numbers in having.values() if len(numbers) > 1]
    rows = []
    for numbers in heapq.nlargest(_SHOWN, several, key=len):
        first = records[numbers[0]]
        prompts = len({prompt(records[number]) for number in numbers})
        figure = f"{len(numbers):,} rows, {prompts:,} prompt{'' if prompts == 1 else 's'}"
        rows.append(texts.excerpt(first, figure, _own(first)[0]))
    nothing = "No two rows have the same answer." if having else "These rows have no answers."
    return Worst("Most repeated answer", tuple(rows), nothing)


def _faulty(records: Sequence[Record], codes: Mapping[str, Sequence[str]], texts: Texts) -> Worst:
    found = heapq.nlargest(_SHOWN, codes.items(), key=lambda item: len(item[1]))
    places = {place for place, _ in found}
    known = {place: r for r in records if (place := str(r.origin)) in places}
    rows = []
    for place, names in found:
        figure = ", ".join(_counted(names))
        if place in known:
            rows.append(texts.excerpt(known[place], figure))
        else:
            rows.append(texts.unread(place, figure))
    return Worst("Most findings", tuple(rows), "Nothing was found at any row.")


def _with_prompt(answer: str, record: Record) -> str:
    asked = prompt(record)
    return f"“{answer}” to: {asked}" if asked else answer


def _own(record: Record) -> tuple[str, ...]:
    """A record's answers; the best one where there are several to one prompt."""
    several = isinstance(record, Preference | Ranking)
    return answers(record)[:1] if several else answers(record)


def _counted(codes: Iterable[str]) -> Iterable[str]:
    for code, count in sorted(Counter(codes).items()):
        yield code if count == 1 else f"{code} ({count} times)"
