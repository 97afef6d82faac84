"""Figures as people read and write them."""

from __future__ import annotations

import re

from luthier.core.errors import RecipeError

_UNITS = {"GB": 2**30, "MB": 2**20, "kB": 2**10}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)
_SCALES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size(count: float) -> str:
    """Bytes, in the largest unit that fits.

    >>> size(3 * 2**30), size(1536), size(12)
    ('3.0 GB', '1.5 kB', '12 bytes')
    """
    for unit, scale in _UNITS.items():
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:.0f} bytes"


def many(count: int, noun: str) -> str:
    """A count with its noun.

    >>> many(1, "row"), many(1200, "error")
    ('1 row', '1,200 errors')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def parse_size(text: str) -> int:
    """What :func:`size` writes, and the usual shorter forms, as bytes.

    >>> parse_size("5GB") == parse_size("5 g") == 5 * 2**30, parse_size("1.5 kB")
    (True, 1536)

    Raises:
        RecipeError: not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise RecipeError(f"'{text}' is not a size", cure="write one as 5GB, 500MB or 0")
    return int(float(match.group(1)) * _SCALES[match.group(2).lower()])
