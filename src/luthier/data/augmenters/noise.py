"""Copies of rows with typing errors: letters dropped, doubled, swapped, or a key beside."""

from __future__ import annotations

import random
import re
from typing import Literal

from pydantic import Field

from luthier.data.augmenters import _noise
from luthier.data.augmenters._noise import Noise, joined, words

Error = Literal["drop", "double", "swap", "key"]
#: Rows of letter keys, from the top; a lower row lies half a key further right.
_KEYBOARDS = {
    "qwerty": ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    "qwertz": ("qwertzuiopü", "asdfghjklöä", "yxcvbnm"),
    "azerty": ("azertyuiop", "qsdfghjklm", "wxcvbn"),
}
#: A word of three letters or more: what has digits, an @ or a slash means something else then.
_PLAIN = re.compile(r"[^\w/@]*[^\W\d_]{3,}(?:['’-][^\W\d_]+)*[^\w/@]*")


class Config(_noise.Config):
    """Which errors, how many, and how many copies."""

    kind: str = "noise"
    errors: tuple[Error, ...] = Field(default=("drop", "double", "swap", "key"), min_length=1)
    """Kinds of errors to draw from."""
    keyboard: Literal["qwerty", "qwertz", "azerty"] = "qwerty"
    """Whose keys lie beside each other."""


class Augmenter(Noise):
    """One error in each of some words (as Belinkov & Bisk 2018, arXiv 1711.02173)."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._beside = _neighbours(_KEYBOARDS[config.keyboard])

    def change(self, text: str, rng: random.Random) -> str:
        """The text with an error in ``share`` of its words, one at least."""
        found, gaps = words(text)
        plain = [i for i, word in enumerate(found) if _PLAIN.fullmatch(word)]
        for index in rng.sample(
            plain, min(len(plain), max(1, round(self.config.share * len(found))))
        ):
            found[index] = self._mistyped(found[index], rng)
        return joined(found, gaps)

    def _mistyped(self, word: str, rng: random.Random) -> str:
        """The word with the first error that changes it, of the recipe's in a drawn order."""
        letters = [i for i, sign in enumerate(word) if sign.isalpha()]
        for error in rng.sample(self.config.errors, len(self.config.errors)):
            for at in rng.sample(letters, len(letters)):
                made = self._at(word, at, error, rng)
                if made != word:
                    return made
        return word

    def _at(self, word: str, at: int, error: Error, rng: random.Random) -> str:
        before, sign, after = word[:at], word[at], word[at + 1 :]
        if error == "drop":
            return before + after
        if error == "double":
            return before + sign + sign + after
        if error == "swap":
            return before + after[0] + sign + after[1:] if after[:1].isalpha() else word
        keys = self._beside.get(sign.lower(), "")
        if not keys:
            return word
        key = rng.choice(keys)
        return before + (key.upper() if sign.isupper() else key) + after


def _neighbours(rows: tuple[str, ...]) -> dict[str, str]:
    """Each key's neighbours in its own row and in the ones above and below."""
    found: dict[str, str] = {}
    for number, row in enumerate(rows):
        for at, key in enumerate(row):
            near = [row[i] for i in (at - 1, at + 1) if 0 <= i < len(row)]
            for other, places in ((number - 1, (at, at + 1)), (number + 1, (at - 1, at))):
                if 0 <= other < len(rows):
                    near += [rows[other][i] for i in places if 0 <= i < len(rows[other])]
            found[key] = "".join(near)
    return found
