"""Texts as hashes of their words and shingles, many texts at once, in numpy.

A word is a run of anything but white space and the usual marks of punctuation, in lower case and
NFKC; a Chinese or Japanese character is a word. A shingle is three words in a row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

#: Words of a shingle.
SHINGLE = 3
#: Bytes hashed at once; longer texts are cut there, between words.
SLICE = 1 << 20

_MARKS = re.compile(
    "[\u00a0\u00ab\u00bb\u2010-\u2027\u2030-\u205e\u3000-\u3003\u3008-\u3011\uff01\uff0c\uff1f]"
)
_CHARACTER = re.compile("([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
_PRIME = 0x9E3779B97F4A7C15
_ROUNDS = tuple(np.uint64(each) for each in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_PLACES = tuple(np.uint64(each) for each in (0x9E6C63D0876A9A47, 0xC2B2AE3D27D4EB4F, 1))

_IS_WORD = np.ones(256, dtype=bool)
_IS_WORD[[*range(33), 127, *b".,;:!?\"'`()[]{}"]] = False


@dataclass(frozen=True)
class Hashed:
    """Texts, each as hashes.

    Attributes:
        whole: ``[texts]`` of all words in order; equal texts have equal ones, 0 without any word.
        shingles: those of all texts end to end, each text's sorted and once.
        counts: ``[texts]`` how many of them are each text's.
    """

    whole: U64
    shingles: U32
    counts: I64


def hashed(texts: Sequence[str]) -> Hashed:
    """Hashes of texts.

    >>> one, other = hashed(["The cat, it sat."]).whole, hashed(["the CAT it  sat"]).whole
    >>> bool(one == other)
    True
    """
    words, rows = words_of(texts)
    count = len(texts)
    starts = np.searchsorted(rows, np.arange(count + 1))
    within = np.arange(len(words)) - starts[rows]
    with np.errstate(over="ignore"):
        placed = mixed(words + mixed(within.astype(np.uint64)))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(placed, dtype=np.uint64)])
        whole = sums[starts[1:]] - sums[starts[:-1]]
        if len(words) < SHINGLE:
            return Hashed(whole, np.zeros(0, np.uint32), np.zeros(count, np.int64))
        last = len(words) - SHINGLE + 1
        joined = np.zeros(last, np.uint64)
        for place, factor in enumerate(_PLACES):
            joined += words[place : place + last] * factor
        keep = rows[:last] == rows[SHINGLE - 1 :]
        short = mixed(joined[keep]) >> np.uint64(32)
    keys = np.unique((rows[:last][keep].astype(np.uint64) << np.uint64(32)) | short)
    owner = (keys >> np.uint64(32)).astype(np.int64)
    return Hashed(whole, keys.astype(np.uint32), np.bincount(owner, minlength=count))


def mixed(values: U64) -> U64:
    """Integers whose bits depend on all bits of the ones given (splitmix64's last step)."""
    with np.errstate(over="ignore"):
        values = values ^ (values >> np.uint64(30))
        values = values * _ROUNDS[0]
        values = values ^ (values >> np.uint64(27))
        values = values * _ROUNDS[1]
        return values ^ (values >> np.uint64(31))


def _normal(text: str) -> str:
    if not text.isascii():
        text = _MARKS.sub(" ", unicodedata.normalize("NFKC", text))
        text = _CHARACTER.sub(r" \1 ", text)
    return text.lower()


def words_of(texts: Sequence[str]) -> tuple[U64, I64]:
    """Hash of every word, and which text it is of."""
    normal = _normal("\x00".join(text.replace("\x00", " ") for text in texts))
    raw = np.frombuffer(normal.encode("utf-8", "replace"), dtype=np.uint8)
    ends = np.flatnonzero(raw == 0)
    found = [(_hashes(raw[a:b]), a) for a, b in _slices(raw)]
    words = np.concatenate([hashes for (_, hashes), _ in found])
    starts = np.concatenate([places + at for (places, _), at in found])
    return words, np.searchsorted(ends, starts)


def _slices(raw: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    at = 0
    while len(raw) - at > SLICE:
        back = np.flatnonzero(~_IS_WORD[raw[at : at + SLICE]])
        stop = at + (int(back[-1]) + 1 if len(back) else SLICE)
        yield at, stop
        at = stop
    yield at, len(raw)


_TABLES: list[U64] = []


def _powers() -> tuple[U64, U64]:
    """Powers of an odd number and of its inverse, modulo 2**64."""
    if not _TABLES:
        with np.errstate(over="ignore"):
            for base in (_PRIME, pow(_PRIME, -1, 2**64)):
                table = np.full(SLICE + 1, base, dtype=np.uint64)
                table[0] = 1
                _TABLES.append(np.cumprod(table, dtype=np.uint64))
    return _TABLES[0], _TABLES[1]


def _hashes(raw: npt.NDArray[np.uint8]) -> tuple[I64, U64]:
    """Start and hash of each word: a polynomial of its bytes, from differences of one sum."""
    edges = np.diff(np.concatenate([[False], _IS_WORD[raw], [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    powers, inverses = _powers()
    with np.errstate(over="ignore"):
        terms = (raw.astype(np.uint64) + np.uint64(1)) * powers[: len(raw)]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        hashes = (sums[ends] - sums[starts]) * inverses[starts]
    return starts, mixed(hashes)
