"""Talking to a model: a run, a folder, a hub id or a builtin, by its own template."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from luthier.codecs import decoder_prompt, pair_codec
from luthier.core.errors import RecipeError
from luthier.core.recipe import ModelSpec
from luthier.core.records import Turn
from luthier.core.rundir import RunDir
from luthier.data.template import TokenizerCodec
from luthier.generation.sampling import Sampler, Sampling
from luthier.models.language_model import CausalModel
from luthier.models.load import PAIR, Loaded, Where, load, locate, read_note, tokenizer_at


class Chat:
    """A model that answers.

    >>> chat = Chat.open("runs/support")                            # doctest: +SKIP
    >>> chat.answer("Where is my order 1234?", max_new_tokens=60)   # doctest: +SKIP
    'It left our warehouse this morning.'

    Args:
        loaded: model and tokenizer.
        note: what a run keeps beside its weights: end tokens, what to do with system turns.

    Attributes:
        has_template: whether the tokenizer brought a chat template; without one Luthier's default
            is used, which the model never saw.
        context: tokens the model can attend to.
        notices: what the user should know about the answers so far (prompts cut, turns left out).
    """

    def __init__(self, loaded: Loaded, note: dict[str, Any] | None = None) -> None:
        model = loaded.model
        if not isinstance(model, CausalModel):
            raise RecipeError(
                f"'{loaded.name}' is no language model: it does not talk",
                cure="luthier.classify.Classifier.open(name).predict([text]), or "
                "luthier.tag.Tagger where it tags words",
            )
        note = note or {}
        pair = pair_codec(loaded, note.get(PAIR) or {}, loaded.context)
        self.has_template = bool(loaded.tokenizer.chat_template) or pair is not None
        self.context = loaded.context
        self.notices = list(loaded.said)
        self._codec = pair or TokenizerCodec(
            loaded.tokenizer, system=note.get("system", "keep"), max_length=loaded.context
        )
        ends = {
            *self._codec.end_tokens,
            *note.get("end_tokens", ()),
            *model.end_tokens,
        }
        self._eos = loaded.tokenizer.eos_token_id
        self._paired = pair is not None
        self._sampler = Sampler(
            model.generating,
            loaded.tokenizer,
            sorted(ends),
            loaded.context,
            decoder_prompt(self._codec),
        )

    @classmethod
    def open(cls, name: str, *, base: bool = False) -> Chat:
        """A model by name.

        Args:
            name: a run, a folder, an adapter, a hub id or a builtin.
            base: the model that the run or adapter stands on instead, asked in the very same
                template.

        Raises:
            UserError: not found, or ``base`` of what has none.
        """
        where = locate(name)
        note = read_note(Path(where.name)) if where.kind != "hub" else {}
        loaded = _base(name, where) if base else load(name)
        return cls(loaded, note)

    def answer(self, prompt: str, *, system: str | None = None, **sampling: Any) -> str:
        """The answer to one user message; greedy unless ``sampling`` says more.

        ``sampling`` are the fields of :class:`~luthier.generation.sampling.Sampling`.
        """
        return self.answers([prompt], Sampling(**sampling), system=system)[0]

    def answers(
        self, prompts: Sequence[str], sampling: Sampling, *, system: str | None = None
    ) -> list[str]:
        """The answers to many messages, each a conversation of its own, sampled together."""
        before = () if system is None else (Turn("system", system),)
        rows = [self._codec.prompt((*before, Turn("user", prompt))) for prompt in prompts]
        return [text.strip() for text in self._sample(rows, sampling)]

    def stream(self, turns: Sequence[Turn], sampling: Sampling | None = None) -> Iterator[str]:
        """The next answer of a conversation, piece by piece.

        A conversation that has outgrown the context loses its oldest exchanges, never its system
        turn, and :attr:`notices` says so.
        """
        asked = sampling or Sampling()
        prompt = self._recent(list(turns), asked)
        return self._sampler.stream(prompt, self._fitted(prompt, asked))

    def complete(self, text: str, **sampling: Any) -> str:
        """What the model writes after a text, without any template."""
        return self.completions([text], Sampling(**sampling))[0]

    def completions(self, texts: Sequence[str], sampling: Sampling) -> list[str]:
        """What the model writes after each text, sampled together."""
        return self._sample([self._opening(text) for text in texts], sampling)

    def stream_completion(self, text: str, sampling: Sampling) -> Iterator[str]:
        """The same for one text, piece by piece."""
        prompt = self._opening(text)
        return self._sampler.stream(prompt, self._fitted(prompt, sampling))

    def _opening(self, text: str) -> list[int]:
        """A document without the token that would end it."""
        tokens = self._codec.document(text)
        if self._paired:
            return tokens
        if len(tokens) > 1 and tokens[-1] == self._eos:
            tokens.pop()
        return tokens

    def _sample(self, rows: Sequence[list[int]], sampling: Sampling) -> list[str]:
        groups: dict[Sampling, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            groups[self._fitted(row, sampling)].append(index)
        texts = [""] * len(rows)
        for fitted, indices in groups.items():
            found = self._sampler.text([rows[i] for i in indices], fitted)
            for index, text in zip(indices, found, strict=True):
                texts[index] = text
        return texts

    def _fitted(self, prompt: Sequence[int], sampling: Sampling) -> Sampling:
        """An answer may take what the prompt leaves of the context, and half of it in any case.

        Behind an encoder both have the whole of it.
        """
        if self._paired:
            return self._fitted_pair(prompt, sampling)
        room = max(self.context - len(prompt), self.context // 2)
        new = min(sampling.max_new_tokens, room)
        if new < sampling.max_new_tokens:
            self._notice(f"an answer ends after {new:,} tokens: the context is {self.context:,}")
        if (lost := len(prompt) - (self.context - new)) > 0:
            self._notice(
                f"a prompt of {len(prompt):,} tokens lost its first {lost:,}: the context is "
                f"{self.context:,}"
            )
        return replace(sampling, max_new_tokens=new)

    def _fitted_pair(self, prompt: Sequence[int], sampling: Sampling) -> Sampling:
        if (lost := len(prompt) - self.context) > 0:
            self._notice(
                f"a source of {len(prompt):,} tokens lost its first {lost:,}: the encoder reads "
                f"{self.context:,}"
            )
        # The decoder's own first tokens take their place as well.
        room = self.context - len(decoder_prompt(self._codec) or ())
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))

    def _recent(self, turns: list[Turn], sampling: Sampling) -> list[int]:
        """The prompt of the newest turns that fit."""
        room = self.context - min(sampling.max_new_tokens, self.context // 2)
        dropped = 0
        while len(prompt := self._codec.prompt(turns)) > room:
            users = [i for i, turn in enumerate(turns) if turn.role == "user"]
            if len(users) < 2:
                break
            turns = [*turns[: users[0]], *turns[users[1] :]]
            dropped += users[1] - users[0]
        if dropped:
            self._notice(f"the oldest {dropped} turns no longer fit and were left out")
        return prompt

    def _notice(self, line: str) -> None:
        if line not in self.notices:
            self.notices.append(line)


def _base(name: str, where: Where) -> Loaded:
    """What a run or an adapter stands on, with the tokenizer (and template) of the tuned one."""
    if where.kind == "adapter":
        return load(name, adapter=False)
    run = RunDir(Path(name).expanduser())
    if not run.is_run:
        raise RecipeError(
            f"'{name}' is neither a run nor an adapter: no base model is known", code="no-base"
        )
    recipe = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    spec = ModelSpec.model_validate(recipe["model"])
    if spec.name is None:
        raise RecipeError(
            f"run '{name}' began from scratch: it has no base model to compare with",
            code="no-base",
        )
    loaded = load(spec)
    loaded.tokenizer = tokenizer_at(where)
    return loaded
