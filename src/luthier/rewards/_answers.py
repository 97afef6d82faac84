"""What rules share: the right answer of a prompt, numbers in text, the final part of an answer."""

from __future__ import annotations

import re
from fractions import Fraction

from luthier.core.errors import DataError
from luthier.core.records import Prompt

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:\s*/\s*\d+(?:\.\d+)?)?")


def right_answer(prompt: Prompt, reward: str) -> str:
    """The right answer that came with a prompt.

    Raises:
        DataError: none came.
    """
    found = prompt.check.get("answer")
    if found is None:
        raise DataError(
            f"reward '{reward}' compares with a right answer, and this row has none",
            str(prompt.origin),
            "data.format: checkable, with a column answer; or another reward",
            "reward",
        )
    return str(found)


def numbers(text: str) -> list[Fraction]:
    """The numbers of a text, exactly: ``1,250``, ``-3.5`` and ``7/2`` are one each."""
    found = []
    for match in _NUMBER.finditer(text):
        said = match.group().replace(",", "").replace(" ", "")
        over, _, under = said.partition("/")
        if not any(sign.isdigit() for sign in over):
            continue
        below = Fraction(under) if under else Fraction(1)
        if below:
            found.append(Fraction(over) / below)
    return found


def behind(text: str, mark: str | None) -> str | None:
    """What stands behind the last mark; all of it without one, ``None`` where it is missing."""
    if mark is None:
        return text
    before, found, after = text.rpartition(mark)
    del before
    return after if found else None


def plain(text: str) -> str:
    """A text as answers are compared: case, spaces and a closing full stop aside."""
    return " ".join(text.casefold().split()).rstrip(".!").strip()
