"""Several answers to many prompts from the weights as they are, for learning from samples.

Continuous batching: an answer that is done leaves and another prompt's enter, so that what is
finished costs nothing. A prompt is computed once for all of its answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from luthier.core.contracts_models import Decoder
from luthier.core.records import Answer
from luthier.generation.choosing import Choice, draws

#: Told as soon as all answers to a prompt are there: its number, and they.
Told = Callable[[int, Sequence[Answer]], None]


@dataclass
class _Answer:
    """An answer under way."""

    prompt: int
    number: int
    draws: npt.NDArray[Any]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class RolloutGenerator:
    """See :class:`luthier.core.contracts.Generator`.

    Args:
        decoding: rows and a length to a context that yields a decoder with so many slots of it.
        decode: tokens to text, for stop strings.
        end_tokens: tokens that end an answer.
        rows: answers under way at once, by the tokens of the longest.
    """

    def __init__(
        self,
        decoding: Callable[[int, int], AbstractContextManager[Decoder]],
        decode: Callable[[Sequence[int]], str],
        end_tokens: Sequence[int],
        rows: Callable[[int], int],
    ) -> None:
        self._decoding, self._decode = decoding, decode
        self._end, self._rows = frozenset(end_tokens), rows
        self._numbers: Sequence[int] | None = None

    def numbered(self, numbers: Sequence[int]) -> RolloutGenerator:
        """The same for prompts that go by these numbers, where they are some of more."""
        other = copy(self)
        other._numbers = numbers
        return other

    def sample(
        self, prompts: Sequence[Sequence[int]], answers: int, seed: int, **settings: Any
    ) -> list[list[Answer]]:
        """Several answers to each prompt.

        Args:
            prompts: in tokens.
            answers: to each of them.
            seed: with the numbers of a prompt and of an answer it is the key of that answer.
            settings: ``max_new_tokens``, ``stop`` (strings that end an answer), ``told`` (a
                :data:`Told`), and the fields of :class:`~luthier.generation.choosing.Choice`.
        """
        most: int = settings.pop("max_new_tokens", 128)
        stop: Sequence[str] = settings.pop("stop", ())
        told: Told | None = settings.pop("told", None)
        longest = max(len(prompt) for prompt in prompts) + most
        rows = max(answers, min(self._rows(longest), answers * len(prompts)))
        with torch.no_grad(), self._decoding(rows, longest) as decoder:
            work = _Work(decoder, Choice(**settings), most, self._stops(stop), rows)
            groups: dict[int, dict[int, Answer]] = {n: {} for n in range(len(prompts))}
            keys = self._numbers or range(len(prompts))
            for done, answer in work.through(prompts, answers, seed, keys):
                group = groups[done.prompt]
                group[done.number] = answer
                if told is not None and len(group) == answers:
                    told(done.prompt, [group[n] for n in range(answers)])
        return [[group[n] for n in range(answers)] for group in groups.values()]

    def _stops(self, stop: Sequence[str]) -> Callable[[list[int]], bool]:
        """Whether an answer ends with its newest token."""
        # A token spells at least a byte; two more for the decoder's habits at the beginning.
        reach = max((len(s.encode()) for s in stop), default=0) + 2

        def ends(tokens: list[int]) -> bool:
            if tokens[-1] in self._end:
                return True
            if not stop:
                return False
            text = self._decode(tokens[-reach:])
            return any(s in text for s in stop)

        return ends


class _Work:
    """One call of the generator."""

    def __init__(
        self,
        decoder: Decoder,
        choice: Choice,
        most: int,
        ends: Callable[[list[int]], bool],
        rows: int,
    ) -> None:
        self._decoder, self._choice, self._most = decoder, choice, most
        self._ends, self._rows = ends, rows
        self._active: list[_Answer] = []

    def through(
        self, prompts: Sequence[Sequence[int]], answers: int, seed: int, keys: Sequence[int]
    ) -> Iterator[tuple[_Answer, Answer]]:
        """Every answer, as it is done; ``keys`` are the prompts' numbers in their draws."""
        waiting = deque(enumerate(prompts))
        while waiting or self._active:
            count = min(len(waiting), (self._rows - len(self._active)) // answers)
            logits = self._advanced()
            entered = [waiting.popleft() for _ in range(count)]
            if entered:
                first = self._decoder.enter([prompt for _, prompt in entered], answers)
                first = first.repeat_interleave(answers, 0)
                logits = first if logits is None else torch.cat([logits, first])
                self._active += [
                    _Answer(number, each, draws(seed, keys[number], each, self._most))
                    for number, _ in entered
                    for each in range(answers)
                ]
            assert logits is not None
            yield from self._chosen(logits)

    def _advanced(self) -> Tensor | None:
        """Scores of the next tokens of those that are under way."""
        if not self._active:
            return None
        newest = [answer.tokens[-1] for answer in self._active]
        return self._decoder.advance(torch.tensor(newest, device=self._device))

    def _chosen(self, logits: Tensor) -> list[tuple[_Answer, Answer]]:
        """Every answer's next token; those that are done with it leave."""
        self._device = logits.device
        wanted = [answer.draws[len(answer.tokens)] for answer in self._active]
        kind = torch.promote_types(logits.dtype, torch.float32)
        numbers = torch.tensor(wanted, dtype=kind, device=logits.device)
        found = self._choice.choose(logits, numbers)
        done = []
        pairs = zip(self._active, *(column.tolist() for column in found), strict=True)
        for row, (answer, token, logprob) in enumerate(pairs):
            answer.tokens.append(token)
            answer.logprobs.append(logprob)
            ended = self._ends(answer.tokens)
            if ended or len(answer.tokens) == self._most:
                done.append((row, ended))
        left = []
        for row, ended in reversed(done):  # the last one takes a free slot, as in the decoder
            answer = self._active[row]
            self._decoder.leave(row)
            self._active[row] = self._active[-1]
            self._active.pop()
            left.append((answer, Answer(tuple(answer.tokens), ended, tuple(answer.logprobs))))
        return left
