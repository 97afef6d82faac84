"""Answers of generators, kept in the cache as they come: a second start asks nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.core import cache
from luthier.core.generators import GeneratorSpec, Question

Answers = list[str | None]
#: Takes runs of questions; gives the number of each and its answers, in any order.
Ask = Callable[[Sequence[Sequence[Question]]], Iterator[tuple[int, Answers]]]

#: Raised whenever the meaning of kept answers changes.
_VERSION = 1
_FILE = "answers.json"


def answered(identity: Any, questions: Sequence[Question], size: int, ask: Ask) -> Answers:
    """An answer to every question, from the cache where it was given before.

    What came before an error is kept: the next start asks for the rest alone.

    Args:
        identity: plain data that tells this generator, its weights and settings from any other.
        questions: in order.
        size: how many are answered together: a batch whose draws depend on each other.
        ask: answers those runs of ``size`` questions that are not in the cache.
    """
    runs = [questions[at : at + size] for at in range(0, len(questions), size)]
    places = [
        cache.place("answers", cache.key(_VERSION, identity, [_plain(q) for q in run]))
        for run in runs
    ]
    with cache.turn(cache.place("answers", cache.key(identity))):
        found = {number: _read(place) for number, place in enumerate(places)}
        missing = [number for number, answers in found.items() if answers is None]
        if missing:
            for number, answers in ask([runs[i] for i in missing]):
                found[missing[number]] = answers
                with cache.made(places[missing[number]]) as whole:
                    (whole / _FILE).write_text(json.dumps(answers), encoding="utf-8")
    return [answer for number in range(len(runs)) for answer in found[number] or ()]


def sampling(spec: GeneratorSpec) -> list[Any]:
    """The settings of a generator that an answer depends on."""
    return [spec.temperature, spec.top_p, spec.max_tokens]


def _plain(question: Question) -> list[Any]:
    return [[asdict(turn) for turn in question.turns], question.seed]


def _read(place: Path) -> Answers | None:
    try:
        found: Answers = json.loads((place / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found
