"""The models that data borrows: generators that write rows, encoders that tell texts apart."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.core import cache
from luthier.core.contracts import Head
from luthier.core.errors import RecipeError
from luthier.core.generators import GeneratorSpec, Question, Writer
from luthier.core.records import Floats
from luthier.core.words import many
from luthier.data.template import TokenizerCodec
from luthier.evaluation.measure import embed
from luthier.generation.kept import Answers, answered, sampling
from luthier.generation.remote import RemoteWriter
from luthier.generation.sampling import Sampler, Sampling
from luthier.models import content
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import CausalModel
from luthier.models.load import load, locate, read_note

Say = Callable[[str], None]

#: Questions answered as one batch, whose draws hang together.
_TOGETHER = 32
_VECTORS = "vectors.npy"


class OpenedModels:
    """Opens them when they are first needed, and lets go of them afterwards.

    Args:
        device: as ``training.device`` says.
        aloud: told as well what leaves the machine, where ``say`` speaks only afterwards.
    """

    def __init__(self, device: str = "auto", aloud: Say | None = None) -> None:
        self._aloud = aloud
        able = device in ("auto", "cuda") and torch.cuda.is_available()
        self._device = torch.device("cuda" if able else "cpu")

    def writer(self, spec: GeneratorSpec, say: Say) -> Writer:
        """The generator of a recipe; ``say`` is told what leaves the machine, before it does.

        Raises:
            UserError: no such model, or no key.
        """
        if spec.url is not None:
            return RemoteWriter(spec, self._both(say))
        return LocalWriter(spec, say, self._device)

    def _both(self, say: Say) -> Say:
        def both(line: str) -> None:
            say(line)
            if self._aloud is not None:
                self._aloud(line)

        return both

    def embed(self, model: str, texts: Sequence[str], say: Say) -> Floats:
        """Texts as vectors of length one, ``[texts, H]``, from the cache where they were made.

        Raises:
            UserError: no such model.
        """
        said = hashlib.sha256(repr(list(texts)).encode("utf-8", "backslashreplace")).hexdigest()
        place = cache.place("embeddings", cache.key(_identity(model), said))
        if (place / _VECTORS).is_file():
            found: Floats = np.load(place / _VECTORS, allow_pickle=False)
            return found
        head = Head("classification", 2, "mean", ("no", "yes"), "single_label")  # never asked
        with torch.random.fork_rng():
            loaded = load(model, device=self._device, head=head)
        assert isinstance(loaded.model, ClassifierModel)
        codec = TokenizerCodec(loaded.tokenizer, max_length=loaded.context)
        vectors, cut = embed(loaded.model, texts, codec)
        if cut:
            say(f"{many(len(cut), 'text')} longer than {model} takes: their beginnings are told")
        with cache.made(place) as whole:
            np.save(whole / _VECTORS, vectors, allow_pickle=False)
        del loaded
        _let_go()
        return vectors


class LocalWriter:
    """Answers from a model on this machine, loaded only where the cache lacks an answer.

    Args:
        spec: without a ``url``.
        say: takes a line for the user.
        device: where to compute.
    """

    def __init__(self, spec: GeneratorSpec, say: Say, device: torch.device) -> None:
        self._spec, self._say, self._device = spec, say, device

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        """An answer to each question; ``None`` where it is empty or was cut at its bound.

        Raises:
            UserError: no such model, or one that does not write.
        """
        identity = ["local", _identity(self._spec.model), sampling(self._spec)]
        return answered(identity, questions, _TOGETHER, self._ask)

    def _ask(self, runs: Sequence[Sequence[Question]]) -> Iterator[tuple[int, Answers]]:
        count = sum(map(len, runs))
        self._say(f"{many(count, 'question')} to {self._spec.model}, on this machine")
        with torch.random.fork_rng():
            loaded = load(self._spec.model, device=self._device)
        if not isinstance(loaded.model, CausalModel):
            raise RecipeError(
                f"'{self._spec.model}' is a classifier: it writes nothing",
                cure="name a language model",
                code="generator",
            )
        where = locate(self._spec.model)
        note = read_note(Path(where.name)) if where.kind != "hub" else {}
        codec = TokenizerCodec(
            loaded.tokenizer, system=note.get("system", "keep"), max_length=loaded.context
        )
        ends = {*codec.end_tokens, *note.get("end_tokens", ()), *loaded.model.end_tokens}
        sampler = Sampler(loaded.model.generating, loaded.tokenizer, sorted(ends), loaded.context)
        long = 0
        for number, run in enumerate(runs):
            found, over = self._batch(run, codec, sampler, loaded.context)
            long += over
            yield number, found
        if long:
            self._say(
                f"{many(long, 'question')} not asked: with {self._most(loaded.context):,} tokens "
                f"for an answer they do not fit the model's {loaded.context:,}"
            )
        del loaded, sampler
        _let_go()

    def _most(self, context: int) -> int:
        return min(self._spec.max_tokens, context // 2)

    def _batch(
        self, run: Sequence[Question], codec: TokenizerCodec, sampler: Sampler, context: int
    ) -> tuple[Answers, int]:
        """Answers to a run, and how many questions were too long to ask."""
        most = self._most(context)
        prompts = [codec.prompt(question.turns) for question in run]
        fits = [i for i, prompt in enumerate(prompts) if len(prompt) + most <= context]
        how = Sampling(
            most,
            self._spec.temperature,
            self._spec.top_p,
            seed=int(cache.key([question.seed for question in run])[:8], 16),
        )
        answers: Answers = [None] * len(run)
        made = sampler.generate([prompts[i] for i in fits], how)
        for index, tokens in zip(fits, made, strict=True):
            if len(tokens) < most:  # it ended by itself
                answers[index] = codec.decode(tokens).strip() or None
        return answers, len(run) - len(fits)


def _identity(model: str) -> list[Any]:
    """What tells a model's weights from any other's: of a hub id its name alone."""
    return [content.fingerprint(model) or model]


def _let_go() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
