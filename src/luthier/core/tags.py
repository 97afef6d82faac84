"""Tags and the entities that they mark: written in a scheme, and read back whatever they are.

How files are read, strictly, is :mod:`luthier.data.formats.tagged`'s; what a model says is read
here, leniently.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Of no entity.
OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Entity:
    """Words ``[start, stop)`` of one type."""

    start: int
    stop: int
    type: str


def iob2(found: Iterable[Entity], length: int) -> tuple[str, ...]:
    """Tags of entities that do not overlap: B- begins each one, I- goes on.

    >>> iob2([Entity(0, 2, "PER")], 3)
    ('B-PER', 'I-PER', 'O')
    """
    tags = [OUTSIDE] * length
    for entity in found:
        for index in range(entity.start, entity.stop):
            tags[index] = f"{'I' if index > entity.start else 'B'}-{entity.type}"
    return tuple(tags)


def bioes(found: Iterable[Entity], length: int) -> tuple[str, ...]:
    """The same with E- at the last word, and S- where the first word is the last.

    >>> bioes([Entity(0, 2, "PER"), Entity(2, 3, "LOC")], 3)
    ('B-PER', 'E-PER', 'S-LOC')
    """
    tags = [OUTSIDE] * length
    for entity in found:
        for index in range(entity.start, entity.stop):
            last = index == entity.stop - 1
            first = "S" if last else "B"
            tags[index] = (
                f"{first if index == entity.start else 'E' if last else 'I'}-{entity.type}"
            )
    return tuple(tags)


#: Scheme -> how entities are written in it, and the prefixes of its tags.
SCHEMES = {"iob2": (iob2, "BI"), "bioes": (bioes, "BIES")}


def parts(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag, both empty where it marks no entity.

    >>> parts("B-PER"), parts("O"), parts("NOUN")
    (('B', 'PER'), ('', ''), ('', ''))
    """
    prefix, dash, kind = tag.partition("-")
    marks = bool(dash and kind) and prefix in ("B", "I", "E", "S", "L", "U")
    return (prefix, kind) if marks else ("", "")


def types(tags: Iterable[str]) -> set[str]:
    """The types of entities that tags name."""
    return {kind for _, kind in map(parts, tags) if kind}


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags mark, of any scheme, and however broken they are.

    An entity begins at B-, S- or U-, and at any other tag whose type is not that of the entity
    that is open: an I- that follows nothing begins one. It ends behind E-, L-, S- and U-, and
    before whatever does not go on with it. Of sound tags these are the entities meant; of broken
    ones what conlleval (Tjong Kim Sang and Buchholz 2000) and seqeval read.

    >>> entities(["I-PER", "I-PER", "I-LOC", "O"])
    [Entity(start=0, stop=2, type='PER'), Entity(start=2, stop=3, type='LOC')]
    """
    found: list[Entity] = []
    start, open_type = 0, ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = parts(tag)
        if open_type and (kind != open_type or prefix in ("B", "S", "U")):
            found.append(Entity(start, index, open_type))
            open_type = ""
        if kind and not open_type:
            start, open_type = index, kind
        if open_type and prefix in ("E", "L", "S", "U"):
            found.append(Entity(start, index + 1, open_type))
            open_type = ""
    return found
