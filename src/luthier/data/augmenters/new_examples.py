"""New rows of the same kind, asked of a language model that is shown several (Self-Instruct)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field

from luthier.core.contracts import KindConfig
from luthier.core.contracts_data import Augmented
from luthier.core.errors import DataError, nearest
from luthier.core.generators import Generator, GeneratorSpec, Question, Writer
from luthier.core.records import Conversation, Labelled, Record, SourceTarget, Text, Turn
from luthier.data.augmenters._answers import plain, sound
from luthier.data.augmenters._drawn import generator

_PROMPT = (
    "Here are {shown} examples{what}, one JSON object a line:\n\n{rows}\n\n"
    "Write {count} new ones of the same kind, different from these and from each other. Answer "
    "with one JSON object a line, with the same keys, and nothing else."
)


class Config(KindConfig):
    """Who is asked for how many."""

    kind: str = "new_examples"
    generator: Generator = Field(examples=["builtin:nano"])
    """A model on this machine, or ``{url: …, model: …, key_env: …}``."""
    rows: int = Field(default=100, ge=1)
    """New rows to ask for, as many of each class as of any other."""
    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Of labelled rows, the classes to ask for: the rare ones. All of them if unset."""
    shown: int = Field(default=5, ge=1, le=50)
    """Rows shown in each question, drawn anew each time."""
    asked: int = Field(default=5, ge=1, le=50)
    """Rows asked for in each question."""


@dataclass(frozen=True)
class _Group:
    """Rows that are asked for together.

    Attributes:
        label: the class they have in common, empty where there are no classes.
        rows: records with what stands of them in a question.
    """

    label: str
    rows: Sequence[tuple[Record, Mapping[str, str]]]


class Augmenter:
    """Rows drawn as examples, further ones asked for (Wang et al. 2022, arXiv 2212.10560).

    Departures: examples are real rows only, one round is asked, and what is too near to a row is
    found by word shingles, not by ROUGE-L.
    """

    near: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def generator(self) -> GeneratorSpec:
        """The model that is asked."""
        return self.config.generator

    def wanted(self, records: Sequence[Record]) -> int:
        """As many rows as the recipe says."""
        return self.config.rows

    def augment(
        self, records: Sequence[Record], count: int, seed: int, writer: Writer | None
    ) -> Augmented:
        """New records; answers that are no such rows are counted."""
        assert writer is not None
        questions, groups, sizes = [], [], []
        for group, quota in self._quotas(records, count):
            for number, at in enumerate(range(0, quota, self.config.asked)):
                rng = generator(seed, self.config.kind, group.label, number)
                shown = rng.sample(list(group.rows), min(self.config.shown, len(group.rows)))
                size = min(self.config.asked, quota - at)
                rows = tuple(record.origin for record, _ in shown)
                turns = (Turn("user", _asked(group, shown, size)),)
                questions.append(Question(turns, rng.getrandbits(31), rows))
                groups.append(shown[0][0])
                sizes.append(size)
        made: list[Record] = []
        failed: Counter[str] = Counter()
        found = writer.answers(questions)
        for answer, template, size in zip(found, groups, sizes, strict=True):
            new = [_record(template, values) for values in _objects(answer or "")]
            good = [record for record in new if record is not None]
            made += good[:size]
            failed["more than were asked for"] += max(0, len(good) - size)
            failed["missing or unreadable in the answers"] += max(0, size - len(good))
        return Augmented(made, {why: number for why, number in failed.items() if number})

    def _quotas(self, records: Sequence[Record], count: int) -> Iterator[tuple[_Group, int]]:
        groups = self._groups(records)
        for number, group in enumerate(groups):
            quota = count // len(groups) + (number < count % len(groups))
            if quota:
                yield group, quota

    def _groups(self, records: Sequence[Record]) -> list[_Group]:
        """Classes in order of name, or all rows together.

        Raises:
            DataError: rows of a kind that cannot be asked for, or no such class.
        """
        rows: dict[str, list[tuple[Record, Mapping[str, str]]]] = {}
        for record in records:
            if (values := _values(record)) is not None:
                rows.setdefault(_label(record), []).append((record, values))
        if not rows:
            raise DataError(
                "data.augment, new_examples: no row is a text with classes, a prompt with one "
                "answer, a source with a target, or a text alone",
                records[0].origin.source if records else "",
                "leave this step out",
                "augment",
            )
        chosen = sorted(rows) if self.config.classes is None else list(self.config.classes)
        for label in chosen:
            if label not in rows:
                raise DataError(
                    f"data.augment, new_examples: no training row is of class '{label}', "
                    + nearest(label, rows),
                    code="augment",
                )
        return [_Group(label, rows[label]) for label in dict.fromkeys(chosen)]


def _label(record: Record) -> str:
    if not isinstance(record, Labelled):
        return ""
    label = record.label
    return ", ".join(label) if isinstance(label, tuple) else str(label)


def _values(record: Record) -> dict[str, str] | None:
    """What stands of a record in a question; ``None`` where it cannot be asked for."""
    match record:
        case Labelled(text=text, label=str() | tuple(), pair=pair):
            return {"text": text} if pair is None else {"text": text, "text_pair": pair}
        case SourceTarget(source=source, target=target):
            return {"source": source, "target": target}
        case Conversation(turns=(Turn("user", prompt), Turn("assistant", answer, ""))):
            return {"prompt": prompt, "response": answer}
        case Text(text=text):
            return {"text": text}
    return None


def _record(like: Record, values: Mapping[str, Any]) -> Record | None:
    """A record of an answer's object; ``None`` where that has other keys, or no text in one."""
    wanted = _values(like) or {}
    if set(values) != set(wanted):
        return None
    texts = {key: sound(text) for key, text in values.items() if isinstance(text, str)}
    if len(texts) < len(wanted) or not all(texts.values()):
        return None
    match like:
        case Labelled():
            return replace(like, text=texts["text"], pair=texts.get("text_pair"))
        case SourceTarget():
            return replace(like, source=texts["source"], target=texts["target"])
        case Conversation():
            spoken = (Turn("user", texts["prompt"]), Turn("assistant", texts["response"]))
            return replace(like, turns=spoken)
        case _:
            assert isinstance(like, Text), like
            return replace(like, text=texts["text"])


def _asked(group: _Group, shown: Sequence[tuple[Record, Mapping[str, str]]], size: int) -> str:
    rows = "\n".join(json.dumps(values, ensure_ascii=False) for _, values in shown)
    what = f" of the class {json.dumps(group.label, ensure_ascii=False)}" if group.label else ""
    return _PROMPT.format(shown=len(shown), what=what, rows=rows, count=size)


def _objects(answer: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of an answer: one a line, or all in a list."""
    text = plain(answer)
    try:
        whole = json.loads(text.removeprefix("```json").removeprefix("```").removesuffix("```"))
    except (ValueError, RecursionError):
        whole = [_loaded(line) for line in text.splitlines()]
    for each in whole if isinstance(whole, list) else [whole]:
        if isinstance(each, dict):
            yield each


def _loaded(line: str) -> Any:
    try:
        return json.loads(line.strip().rstrip(","))
    except (ValueError, RecursionError):
        return None
