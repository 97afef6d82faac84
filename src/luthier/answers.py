"""Training records answered by another model, once: what sequence-level distillation learns.

Answers are generated in pieces, each kept in the cache by the hash of the model's files, the
prompts and the sampling, so that a run that was stopped asks only for what is missing.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.core import cache
from luthier.core.contracts_beside import Answered
from luthier.core.errors import DataError, RecipeError
from luthier.core.records import Record
from luthier.data.parts import Part
from luthier.data.template import TokenizerCodec
from luthier.engine.backend import Backend
from luthier.generation.sampling import Sampler, Sampling
from luthier.models import content
from luthier.models.language_model import CausalModel
from luthier.models.load import Loaded, load, locate, read_note

Say = Callable[[str], None]
#: Prompts whose answers are kept together: what a kill can cost.
PIECE = 256
_FILE = "answers.json"


def answer(part: Part, objective: Answered, device: str, say: Say) -> Part:
    """The training records with the other model's answers; those that it left empty are out.

    Args:
        part: training records.
        objective: what is asked, and of whom.
        device: as a recipe has it.
        say: takes a line for the user.

    Raises:
        UserError: there is no such model, it is no language model, or it answers nothing at all.
    """
    asked = _Asked(objective, device, say)
    records: list[Record] = []
    for at in range(0, len(part.records), PIECE):
        chosen = part.records[at : at + PIECE]
        for record, text in zip(chosen, asked.texts(chosen), strict=True):
            if text.strip():
                records.append(objective.answered(record, text.strip()))
    asked.close()
    if not records:
        raise DataError(f"'{objective.answerer}' answered no prompt at all", code="no-answer")
    if empty := len(part.records) - len(records):
        say(f"'{objective.answerer}' left {empty:,} prompts without an answer: they are left out")
    name = cache.key(part.fingerprint, [repr(record) for record in records])
    return replace(part, records=tuple(records), fingerprint=name)


class _Asked:
    """The model that answers, loaded when the first answer is missing."""

    def __init__(self, objective: Answered, device: str, say: Say) -> None:
        self._objective, self._say = objective, say
        self._backend = Backend(device)
        self._loaded: Loaded | None = None
        self._sampling = Sampling(**objective.sampling)
        where = locate(objective.answerer)
        self._note = read_note(Path(where.name)) if where.kind != "hub" else {}
        self._files = content.whole(objective.answerer)

    def texts(self, records: Sequence[Record]) -> list[str]:
        """An answer to each record's question."""
        questions = [self._objective.question(record) for record in records]
        files = self._files or self._objective.answerer
        name = cache.key(files, [repr(each) for each in questions], repr(self._sampling))
        place = cache.place("answers", name)
        if self._backend.main and not place.is_dir():
            found = self._generated(questions)
            with cache.made(place) as folder:
                (folder / _FILE).write_text(json.dumps(found), encoding="utf-8")
            cache.trim()
        self._backend.barrier()
        said: list[str] = json.loads((place / _FILE).read_text(encoding="utf-8"))
        return said

    def close(self) -> None:
        """Frees the model."""
        self._loaded = None
        gc.collect()

    def _generated(self, questions: Sequence[Any]) -> list[str]:
        if self._loaded is None:
            self._say(f"'{self._objective.answerer}' answers the training prompts, once")
            self._loaded = load(self._objective.answerer, device=self._backend.device)
        loaded = self._loaded
        if not isinstance(loaded.model, CausalModel):
            raise RecipeError(
                f"'{self._objective.answerer}' is a classifier, and answers nothing",
                cure="objective: classifier_distillation learns from a classifier",
                code="head",
            )
        codec = TokenizerCodec(
            loaded.tokenizer, system=self._note.get("system", "merge"), max_length=loaded.context
        )
        ends = sorted({*codec.end_tokens, *self._note.get("end_tokens", ())})
        sampler = Sampler(loaded.model.generating, loaded.tokenizer, ends, loaded.context)
        new = min(self._sampling.max_new_tokens, loaded.context // 2)
        prompts = [codec.prompt(turns) for turns in questions]
        return sampler.text(prompts, replace(self._sampling, max_new_tokens=new))
