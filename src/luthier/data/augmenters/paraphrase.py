"""Copies of rows in other words, asked of a language model; back and forth through a language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Augmented
from luthier.core.generators import Generator, GeneratorSpec, Question, Writer
from luthier.core.records import Record, Turn
from luthier.data.augmenters._answers import plain
from luthier.data.augmenters._drawn import copies, generator
from luthier.data.augmenters._reading import read, reworded

#: How much longer or shorter than its text an answer may be; short texts have more room.
_LONGER, _SHORTER, _ROOM = 3, 4, 80
_NUMBER = re.compile(r"\d+")
_THERE = (
    "Translate the following text into {language}. Answer with the translation alone.\n\n{text}"
)


class Config(KindConfig):
    """Who is asked, and how."""

    kind: str = "paraphrase"
    generator: Generator = Field(examples=["builtin:nano"])
    """A model on this machine, or ``{url: …, model: …, key_env: …}``."""
    copies: int = Field(default=1, ge=1, le=64)
    """Paraphrases of each row."""
    prompt: str = (
        "Say the following text in other words. Keep its meaning, its language, and every name "
        "and number in it. Answer with the new text alone.\n\n{text}"
    )
    """What is asked; ``{text}`` stands for the text."""
    via: str | None = Field(default=None, min_length=1)
    """A language to translate into and back, in place of ``prompt``: ``German``."""
    language: str | None = Field(default=None, min_length=1)
    """The language of the rows, which a translation comes back to."""

    @field_validator("prompt")
    @classmethod
    def _asks(cls, value: str) -> str:
        if "{text}" not in value:
            raise ValueError("must say where the text stands: {text}")
        return value

    @model_validator(mode="after")
    def _both_ways(self) -> Config:
        if (self.via is None) != (self.language is None):
            raise ValueError("'via' and 'language' go together: there, and back")
        if self.via is not None and self.prompt != type(self).model_fields["prompt"].default:
            raise ValueError("'prompt' has no meaning with 'via'")
        return self


class Augmenter:
    """What a model reads is said in other words; what it learns stays.

    With ``via`` it is translated there and back (Sennrich et al. 2016, arXiv 1511.06709; as
    augmentation Xie et al. 2020, arXiv 1904.12848). An answer with other numbers than its text,
    or of quite another length, is not used.
    """

    near: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def generator(self) -> GeneratorSpec:
        """The model that is asked."""
        return self.config.generator

    def wanted(self, records: Sequence[Record]) -> int:
        """As many copies of each record as the recipe says."""
        return len(records) * self.config.copies

    def augment(
        self, records: Sequence[Record], count: int, seed: int, writer: Writer | None
    ) -> Augmented:
        """Records in other words; those without a usable answer are counted."""
        assert writer is not None
        chosen = copies(records, self.config.copies, count, seed, self.config.kind)
        asked = [
            (row, place, text)
            for row, (record, _) in enumerate(chosen)
            for place, text in enumerate(read(record))
            if text.strip()
        ]
        texts = {(row, place): text for row, place, text in asked}
        for step, (prompt, values) in enumerate(self._prompts()):
            asking = [
                self._question(chosen[row], text, prompt, values, (seed, step))
                for (row, _), text in texts.items()
            ]
            found = zip(texts, writer.answers(asking), strict=True)
            texts = {key: plain(answer) for key, answer in found if answer}
        return _made(chosen, asked, texts)

    def _prompts(self) -> list[tuple[str, Mapping[str, str]]]:
        if self.config.via is None or self.config.language is None:
            return [(self.config.prompt, {})]
        return [(_THERE, {"language": each}) for each in (self.config.via, self.config.language)]

    def _question(
        self,
        chosen: tuple[Record, int],
        text: str,
        prompt: str,
        values: Mapping[str, str],
        drawn: tuple[int, int],
    ) -> Question:
        record, copy = chosen
        for name, value in {**values, "text": text}.items():  # the text last: it may hold braces
            prompt = prompt.replace(f"{{{name}}}", value)
        seed = generator(self.config.kind, *drawn, copy, text).getrandbits(31)
        return Question((Turn("user", prompt),), seed, (record.origin,))


def _made(
    chosen: Sequence[tuple[Record, int]],
    asked: Sequence[tuple[int, int, str]],
    found: Mapping[tuple[int, int], str],
) -> Augmented:
    """Records with all of their texts said anew."""
    failed: Counter[str] = Counter()
    faulty = {
        row: why for row, place, text in asked if (why := _unusable(text, found.get((row, place))))
    }
    failed.update(faulty.values())
    spoken = {row for row, _, _ in asked}
    made = []
    for row, (record, _) in enumerate(chosen):
        if row not in spoken:
            failed["without a text to say otherwise"] += 1
        elif row not in faulty:
            new = [found.get((row, place), text) for place, text in enumerate(read(record))]
            made.append(reworded(record, new))
    return Augmented(made, dict(failed))


def _unusable(text: str, answer: str | None) -> str:
    """Why an answer is no paraphrase of a text; empty where it may be one."""
    if not answer:
        return "without an answer"
    if sorted(_NUMBER.findall(answer)) != sorted(_NUMBER.findall(text)):
        return "with other numbers than their row"
    size = len(text.strip())
    if len(answer) > max(_LONGER * size, size + _ROOM) or _SHORTER * len(answer) < size:
        return "of quite another length than their row"
    return ""
