"""How rows share out: by label, by script, by a named column."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from luthier.core.marks import mark
from luthier.core.records import Labelled, MultipleChoice, Record, Tagged, Thumb
from luthier.data.personal import hidden
from luthier.data_report.figures import Gap, Group, Groups, Label, Labels, Numbers, Script
from luthier.data_report.texts import Texts, said

#: A record and whether it is held out.
Sided = tuple[Record, bool]
#: Groups shown, labels shown of each, and rows that a group needs to be compared with others.
_GROUPS, _LABELS, _COMPARED = 40, 4, 20
#: Characters looked at for their script.
_LOOKED = 2_000
#: What follows a script in the name of a letter: CYRILLIC SMALL LETTER A, HANGUL SYLLABLE GA.
_AFTER = re.compile(
    " (?:CAPITAL|SMALL|LETTER|CHARACTER|SYLLABLE|SYLLABICS|UNIFIED|COMPATIBILITY|LIGATURE)"
)
#: Letters of no script in particular.
_COMMON = ("MATHEMATICAL", "MODIFIER")
_DECIMAL = re.compile(r"[-+]?\d*\.\d+")
_LETTERS = re.compile("[A-Za-z]")
NO_LETTERS = "no letters"


def labels(rows: Sequence[Sided]) -> Labels | Numbers | None:
    """Every label with its rows on each side; ``None`` where rows have none."""
    found_numbers = [_number(r.label) for r, _ in rows if isinstance(r, Labelled)]
    numbers = [number for number in found_numbers if number is not None]
    if numbers and len(numbers) == len(found_numbers):
        low, median, high = np.quantile(numbers, [0, 0.5, 1]).tolist()
        return Numbers(len(numbers), low, median, high)
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    labelled = 0
    noun = ""
    for record, held in rows:
        found = _labels(record)
        if found is None:
            continue
        noun, names = found
        labelled += 1
        counts[held].update(names)
    both = counts[False] + counts[True]
    if not both:
        return None
    divided = any(held for _, held in rows)
    found_labels = tuple(
        Label(
            hidden(name),
            counts[False][name],
            counts[True][name] if divided else None,
            count / labelled,
        )
        for name, count in sorted(both.items(), key=lambda item: (-item[1], item[0]))
    )
    return Labels(noun, labelled, found_labels)


def scripts(rows: Sequence[Sided], texts: Texts) -> tuple[Script, ...]:
    """Rows by the script of most of their letters."""
    counts: Counter[str] = Counter()
    first: dict[str, Record] = {}
    for record, _ in rows:
        name = script(said(record)[:_LOOKED])
        counts[name] += 1
        first.setdefault(name, record)
    return tuple(
        Script(name, count, count / len(rows), texts.excerpt(first[name]))
        for name, count in counts.most_common()
    )


def script(text: str) -> str:
    """The Unicode script of most letters of a text.

    >>> script("Привет, Bob"), script("東京 station, 東京都庁前"), script("1 + 1")
    ('Cyrillic', 'Han', 'no letters')
    """
    if text.isascii():
        return "Latin" if _LETTERS.search(text) else NO_LETTERS
    counts: Counter[str] = Counter()
    for letter, count in Counter(text).items():
        if name := _script(letter):
            counts[name] += count
    return counts.most_common(1)[0][0] if counts else NO_LETTERS


def groups(
    rows: Sequence[Sided], column: str, values: Mapping[str, str], sizes: Mapping[str, int]
) -> Groups:
    """Rows by the value of a column.

    Args:
        rows: all of them.
        column: its name.
        values: what stands in it, by the row's place.
        sizes: tokens of each row that was measured, by its place.
    """
    members: dict[str, list[Sided]] = defaultdict(list)
    for record, held in rows:
        made = mark(record.origin)
        none = f"(made by {made})" if made else ""
        members[values.get(str(record.origin), none)].append((record, held))
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    shared = {name: _shared(inside) for name, inside in ordered}
    found = tuple(
        Group(
            hidden(name),
            len(inside),
            sum(held for _, held in inside),
            len(inside) / len(rows),
            _mean([sizes[place] for r, _ in inside if (place := str(r.origin)) in sizes]),
            tuple((hidden(label), share) for label, share in list(shared[name].items())[:_LABELS]),
        )
        for name, inside in ordered[:_GROUPS]
    )
    compared = {n: shared[n] for n, inside in ordered if len(inside) >= _COMPARED and shared[n]}
    return Groups(column, found, len(ordered) - len(found), _gap(compared))


def _number(label: object) -> float | None:
    """A number to be predicted; a CSV file has it as text, with a point."""
    if isinstance(label, float):
        return label
    written = isinstance(label, str) and _DECIMAL.fullmatch(label)
    return float(written.group()) if written else None


def _labels(record: Record) -> tuple[str, Iterable[str]] | None:
    """What the labels of a record are, and those that it has, each once."""
    match record:
        case Labelled(label=str() as label):
            return "classes", (label,)
        case Labelled(label=tuple() as several):
            return "classes", set(several)
        case Tagged(tags=tags):
            return "tags", {tag.partition("-")[2] or tag for tag in tags if tag != "O"}
        case Thumb(good=good):
            return "thumbs", ("up" if good else "down",)
        case MultipleChoice(answer=answer):
            return "places of the right choice", (chr(ord("A") + answer),)
    return None


def _shared(rows: Iterable[Sided]) -> dict[str, float]:
    """The share of rows that have each label, the largest first."""
    found = [names[1] for record, _ in rows if (names := _labels(record)) is not None]
    counts = Counter(name for names in found for name in names)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {name: count / len(found) for name, count in ranked}


def _gap(shared: Mapping[str, Mapping[str, float]]) -> Gap | None:
    """The label whose share differs most, and where it is highest and lowest."""
    if len(shared) < 2:
        return None
    found: tuple[float, Gap] | None = None
    for label in sorted({label for shares in shared.values() for label in shares}):
        ranked = sorted((shares.get(label, 0.0), name) for name, shares in shared.items())
        (low, lowest), (high, highest) = ranked[0], ranked[-1]
        if found is None or high - low > found[0]:
            gap = Gap(hidden(label), (hidden(highest), high), (hidden(lowest), low))
            found = high - low, gap
    return found[1] if found else None


def _mean(sizes: Sequence[int]) -> float | None:
    return sum(sizes) / len(sizes) if sizes else None


@lru_cache(4096)
def _script(letter: str) -> str:
    """A letter's script, which its name begins with; empty for what is no letter."""
    if unicodedata.category(letter) not in ("Lu", "Ll", "Lt", "Lo"):
        return ""
    head, *rest = _AFTER.split(unicodedata.name(letter, ""), maxsplit=1)
    if not rest or head.startswith(_COMMON):
        return ""
    script = head.removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    return "Han" if script == "CJK" else script.title()
