"""Tag schemes: IOB1, IOB2, BIOES and BILOU to entities and back, and which one tags are in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from luthier.core.tags import Entity as Entity
from luthier.core.tags import iob2 as iob2

_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)


class InvalidTagError(ValueError):
    """A tag that cannot stand where it does.

    Attributes:
        index: its place in the sequence.
    """

    def __init__(self, index: int, cause: str) -> None:
        self.index = index
        super().__init__(cause)


def entities(tags: Sequence[str], scheme: str) -> list[Entity]:
    """The entities that tags of a scheme of :data:`SCHEMES` mark.

    Raises:
        InvalidTagError: a tag that the scheme does not allow there.

    >>> entities(["I-PER", "I-PER", "O"], "iob1")
    [Entity(start=0, stop=2, type='PER')]
    """
    return SCHEMES[scheme](tags)


def detect(sequences: Iterable[Sequence[str]]) -> str:
    """The scheme in which most sequences are valid; of several the one written first.

    ``plain`` where tags mark no spans at all (parts of speech); ``iob2`` where nothing tells.
    """
    votes = Counter(name for tags in sequences for name in _fitting(tags))
    order = [*SCHEMES, "plain"]
    return max(order, key=lambda name: votes[name])


def _fitting(tags: Sequence[str]) -> list[str]:
    if all(tag == "O" for tag in tags):
        return []
    fitting = [name for name in SCHEMES if _valid(tags, name)]
    plain = not any(_TAG.fullmatch(tag) for tag in tags)
    return [*fitting, "plain"] if plain else fitting


def _valid(tags: Sequence[str], scheme: str) -> bool:
    try:
        entities(tags, scheme)
    except InvalidTagError:
        return False
    return True


def _parts(index: int, tag: str, allowed: str) -> tuple[str, str]:
    """Prefix and type of a tag; ``O`` has no type."""
    if tag == "O":
        return "O", ""
    match = _TAG.fullmatch(tag)
    if match is None or match[1] not in allowed:
        wanted = ", ".join(f"{each}-…" for each in allowed)
        raise InvalidTagError(index, f"is neither O nor {wanted}")
    return match[1], match[2]


def _open_ended(tags: Sequence[str], *, always_b: bool) -> list[Entity]:
    """IOB: an entity ends where none of its type goes on. IOB2 always begins one with B-."""
    found: list[Entity] = []
    start, type_ = -1, ""
    for index, tag in enumerate(tags):
        prefix, of = _parts(index, tag, "BI")
        same = start >= 0 and of == type_
        if prefix == "I" and same:
            continue
        if prefix == "I" and always_b:
            raise InvalidTagError(index, f"goes on with {of} where none was begun by B-{of}")
        if prefix == "B" and not always_b and not same:
            raise InvalidTagError(index, f"stands where no other {of} comes before, as in IOB2")
        if start >= 0:
            found.append(Entity(start, index, type_))
        start, type_ = (-1, "") if prefix == "O" else (index, of)
    if start >= 0:
        found.append(Entity(start, len(tags), type_))
    return found


def _closed(tags: Sequence[str], *, end: str, single: str) -> list[Entity]:
    """BIOES and BILOU: an entity says where it ends, and one word has a tag of its own."""
    found: list[Entity] = []
    start, type_ = -1, ""
    for index, tag in enumerate(tags):
        prefix, of = _parts(index, tag, f"BI{end}{single}")
        if prefix in ("I", end):
            if start < 0 or of != type_:
                raise InvalidTagError(index, f"goes on with {of} where none was begun by B-{of}")
            if prefix == end:
                found.append(Entity(start, index + 1, type_))
                start = -1
            continue
        if start >= 0:
            raise InvalidTagError(index, f"stands before the {type_} begun by B- has its {end}-")
        if prefix == single:
            found.append(Entity(index, index + 1, of))
        elif prefix == "B":
            start, type_ = index, of
    if start >= 0:
        raise InvalidTagError(len(tags) - 1, f"is the last, and the {type_} begun has no {end}-")
    return found


#: Scheme -> tags to entities; the first one wins where several fit.
SCHEMES: Mapping[str, Callable[[Sequence[str]], list[Entity]]] = {
    "iob2": partial(_open_ended, always_b=True),
    "iob1": partial(_open_ended, always_b=False),
    "bioes": partial(_closed, end="E", single="S"),
    "bilou": partial(_closed, end="L", single="U"),
}
