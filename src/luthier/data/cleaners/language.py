"""Records in other languages than the ones named, dropped (needs ``luthier[language]``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import Field, field_validator

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Cleaned
from luthier.core.errors import RecipeError, nearest
from luthier.core.records import Record
from luthier.core.words import many
from luthier.data.contents import answers, prompt

#: Characters of a text that are looked at.
_LOOKED = 2_000


class Config(KindConfig):
    """Which languages stay."""

    kind: str = "language"
    keep: tuple[Annotated[str, Field(pattern="^[a-z]{2,3}$")], ...] = Field(examples=[["en"]])
    """Languages that stay, by their ISO 639 codes: ``[en, es]``."""
    least_letters: int = Field(default=15, ge=1)
    """Letters below which a text is too short to tell its language by, and stays."""
    least_probability: float = Field(default=0.1, gt=0, lt=1)
    """A text goes where it is less likely than this to be in one of the languages that stay."""

    @field_validator("keep", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("keep")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name a language, this list is empty")
        return value


class Cleaner:
    """Language by naive Bayes over byte n-grams (Lui & Baldwin 2012, langid.py), offline.

    What is shown and what is learned are judged one by one, so that a translation needs both of
    its languages named.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """The records in these languages, and those too short to tell.

        Raises:
            RecipeError: the library is not installed, or knows no such language.
        """
        told = _identifier()
        for code in self.config.keep:
            if code not in told.labels:
                raise RecipeError(
                    f"data.clean, language: '{code}' is no language that can be told, "
                    + nearest(code, told.labels),
                    code="language",
                )
        left, short = [], 0
        for record in records:
            judged = [t[:_LOOKED] for t in (prompt(record), *answers(record)) if self._tells(t)]
            short += not judged
            if all(self._likely(told, text) for text in judged):
                left.append(record)
        notes = (f"{many(short, 'row')} too short to tell, kept",) if short else ()
        return Cleaned(left, 0, len(records) - len(left), notes)

    def _tells(self, text: str) -> bool:
        return sum(map(str.isalpha, text[:_LOOKED])) >= self.config.least_letters

    def _likely(self, told: Any, text: str) -> bool:
        found = dict(told.rank(text.encode("utf-8", "replace")))
        chance = sum(float(found[code]) for code in self.config.keep)
        return chance >= self.config.least_probability


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise RecipeError(
            "cleaner 'language' needs the package 'py3langid', which is not installed",
            cure="pip install 'luthier[language]'",
            code="package",
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
