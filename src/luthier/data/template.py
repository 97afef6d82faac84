"""The one path from turns to tokens, for training and for generation alike.

What is learned is found by rendering: an assistant turn's answer is what the template writes after
the prompt that it renders for the turns before. Masks are spans of text that are tokenised on
their own, never a search for token ids, so the end-of-turn token is learned whatever its id, and
a prompt's tokens are exactly those with which its training sequence begins.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np

from luthier.core.codec import Aligned, Piece, Place
from luthier.core.errors import UserError
from luthier.core.records import Ints, Segment, Turn
from luthier.data import templates_default
from luthier.data.aligning import align
from luthier.data.encoding import Encoder, Tally
from luthier.data.formats._spans import words
from luthier.data.layout import Layout, Layouts, rewritten
from luthier.data.rendering import Message, Renderer, TemplateRefusedError, mark
from luthier.data.roles import Roles
from luthier.data.runs import THINKING, Run, runs

_VERSION = "luthier-codec-2"


class TokenizerCodec:
    """:class:`luthier.core.contracts.Codec` around a fast transformers tokenizer.

    Text in turns and documents cannot inject special tokens: where it spells one (``<|im_end|>``)
    it is tokenised as plain text and counted.

    Attributes:
        tokenizer: the tokenizer; its ``chat_template`` is set to the one used.
        said: what was decided, in words, known once this is built.
        causal: whether the model's tokens see only those before them.
        counts: events so far: ``special_text``, ``system_dropped``, ``system_merged``,
            ``tool_as_user``, ``tools_unseen``, ``calls_as_text``, ``thinking_dropped``,
            ``thinking_masked``, ``spurious_space``, ``words_unseen``. Safe over threads; another
            process keeps its own.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str | None = None,
        system: Literal["keep", "merge", "drop"] = "keep",
        thinking: Literal["keep", "mask", "drop"] = "keep",
        max_length: int,
        causal: bool = True,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise UserError(
                f"{type(tokenizer).__name__} has no fast tokenizer (tokenizer.json)",
                cure="convert it with the `tokenizers` library, or take another model",
                code="slow_tokenizer",
            )
        self.tokenizer = tokenizer
        self.said: list[str] = []
        self.counts = Tally()
        self._max_length = max_length
        self.causal = causal
        self._thinking = thinking
        self._encoder = Encoder(tokenizer, self.counts)
        self._head, self._tail = surroundings(tokenizer)
        self._between = _between(tokenizer, self._head, self._tail)
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._bos = bos = tokenizer.bos_token_id
        own_bos = bos is not None and bos in self._head
        chosen, said = templates_default.choose(tokenizer, template, writes_bos=own_bos)
        # A tokenizer without an end-of-text token (an encoder's) is not for conversations.
        if tokenizer.eos_token_id is not None or template is not None or tokenizer.chat_template:
            self.said.append(said)
            if template is not None or not tokenizer.chat_template:
                tokenizer.chat_template = chosen
        renderer = Renderer(chosen, _variables(tokenizer))
        self._roles = Roles(renderer, system)
        self._layouts = Layouts(renderer, self._encoder.control)
        self._end_tokens = self._probe()
        #: Conversations rendered ahead, with the characters that mark in them, or refused.
        self._ready: dict[tuple[Turn, ...], tuple[list[Run], str] | UserError] = {}

    @property
    def max_length(self) -> int:
        """Tokens the model can attend to, or the recipe's smaller bound."""
        return self._max_length

    @property
    def end_tokens(self) -> list[int]:
        """Tokens at which generation must stop: the template's end of turn, and end of text."""
        return list(self._end_tokens)

    def document(self, text: str) -> list[int]:
        """A raw document between the tokens that the tokenizer itself puts around a text.

        The end-of-text token (where there is one) follows in any case.
        """
        tokens, spelt = self._encoder.plain(text)
        self.counts.add("special_text", spelt)
        tail, eos = self._tail, self.tokenizer.eos_token_id
        if eos is not None and eos not in tail:
            tail = [*tail, eos]
        return self._checked([*self._head, *tokens, *tail])

    def texts(self, text: str, pair: str | None = None) -> tuple[list[int], list[int] | None]:
        """A text, or two, between the tokens that the tokenizer itself puts around and between.

        Returns:
            Token ids, and token type ids (0 for the first text, 1 for the second) where the
            tokenizer gives its model any.
        """
        tokens, spelt = self._encoder.plain(text)
        first = [*self._head, *tokens]
        second: list[int] = []
        if pair is not None:
            other, more = self._encoder.plain(pair)
            first, second, spelt = [*first, *self._between], other, spelt + more
        self.counts.add("special_text", spelt)
        whole = self._checked([*first, *second, *self._tail])
        if not self._has_types:
            return whole, None
        split = len(first) if pair is not None else len(whole)
        return whole, [0] * split + [1] * (len(whole) - split)

    def aligned(self, text: str, places: Sequence[Place] | None = None) -> Aligned:
        """A text as :meth:`texts` gives it, and the word that each token is of.

        Words that leave no token are counted.
        """
        places = words(text) if places is None else places
        tokens, owner = align(self._encoder, text, places)
        self.counts.add("special_text", len(self._encoder.special.findall(text)))
        self.counts.add("words_unseen", len(places) - len(np.unique(owner[owner >= 0])))
        whole = np.array(self._checked([*self._head, *tokens, *self._tail]), dtype=np.int64)
        around = (len(self._head), len(self._tail))
        types = np.zeros(len(whole), dtype=np.int64) if self._has_types else None
        owner = np.pad(owner, around, constant_values=-1)
        segment = Segment(whole, token_types=types)
        return Aligned(segment, owner, around[0], around[0] + len(tokens))

    @property
    def mask_token(self) -> int | None:
        """The token that stands for a hidden one, where the tokenizer has such a token."""
        found = self.tokenizer.mask_token_id
        return None if found is None else int(found)

    @cached_property
    def plain_tokens(self) -> Ints:
        """Every token that a text can have: the vocabulary without special and added tokens."""
        known = set(self.tokenizer.get_vocab().values()) - set(self._encoder.added)
        return np.array(sorted(known), dtype=np.int64)

    @property
    def frame(self) -> frozenset[int]:
        """Tokens that :meth:`texts` writes around and between texts; no text contains them."""
        return frozenset((*self._head, *self._between, *self._tail))

    def dialogue(self, turns: Sequence[Turn]) -> list[Piece]:
        """A conversation as runs of tokens; an answer is an assistant's text and its end of turn.

        What the template writes between the prompt and the text (few do) is learned with the
        answer, for the model has to write it; what follows the end-of-turn token is not.

        Raises:
            UserError: the template refuses the turns, or rewrites earlier ones.
        """
        known = self._ready.pop(tuple(turns), None) if self._ready else None
        if isinstance(known, UserError):
            raise known
        return self._pieces(*(known or self._rendered(turns)))

    def ahead(self, dialogues: Iterable[Sequence[Turn]] = (), texts: Iterable[str] = ()) -> None:
        """Puts what is asked for next into tokens together, in the tokenizer's own threads.

        Args:
            dialogues: conversations for :meth:`dialogue`, in any order.
            texts: for :meth:`document` or :meth:`texts`.
        """
        plain = [text for text in texts if not self._encoder.special.search(text)]
        self._ready.clear()
        for turns in map(tuple, dialogues):
            if turns in self._ready:
                continue
            try:
                self._ready[turns] = runs, marks = self._rendered(turns)
            except UserError as error:  # told when its turn comes
                self._ready[turns] = error
                continue
            alone = runs[:1] if self._encoder.prefixes else runs
            plain += [run.text for run in alone if not marks]
        self._encoder.ahead(plain)

    def last_turn(self, turns: Sequence[Turn]) -> list[Piece]:
        """As :meth:`dialogue`, but only the last assistant turn is an answer.

        Turns after it are left out. Works with templates that rewrite earlier turns.

        Raises:
            UserError: there is no assistant turn, or the template refuses the turns.
        """
        messages, marks = self._messages(turns)
        last = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=None)
        if last is None:
            raise UserError("the conversation has no assistant turn to learn", code="no_answer")
        with _refusals_told():
            answer = self._layouts.last(messages[: last + 1])
        before = self._context(messages[:last])
        layout = Layout(answer.text, (*before.spans, *answer.spans))
        pieces = self._pieces(self._runs(layout), marks)
        final = max(i for i, piece in enumerate(pieces) if piece.answer)
        return [
            Piece(p.tokens, p.turn, answer=False) if p.answer and i != final else p
            for i, p in enumerate(pieces)
        ]

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens up to where the assistant begins to speak.

        They are those with which a training sequence of these turns and an answer begins.

        Raises:
            UserError: the template refuses the turns.
        """
        messages, marks = self._messages(turns)
        pieces = self._pieces(self._runs(self._context(messages)), marks)
        return [token for piece in pieces for token in piece.tokens]

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Tokens to text; special tokens are left out unless asked for."""
        text = self.tokenizer.decode(
            list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return str(text)

    def fingerprint(self) -> str:
        """Hash of everything that decides which tokens a record becomes."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        backend.pop("truncation"), backend.pop("padding")
        template = self._layouts.renderer.template
        today = str(datetime.date.today()) if "strftime_now" in template else ""
        parts = [_VERSION, backend, template, dict(self._layouts.renderer.variables)]
        parts += [self._roles.policy, self._thinking, self._max_length, today]
        parts += [] if self.causal else ["whole"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _messages(self, turns: Sequence[Turn]) -> tuple[list[Message], str]:
        if not turns:
            raise UserError("a conversation without turns", code="no_turns")
        if self._thinking == "drop":
            turns = [self._without_thinking(turn) for turn in turns]
        messages = self._roles.settle(turns, self.counts)
        texts = [text for m in messages for text in (m.content, m.calls)]
        texts, marks, spelt = mark(texts, self._encoder.special)
        self.counts.add("special_text", spelt)
        if marks:
            both = zip(texts[::2], texts[1::2], strict=True)
            messages = [
                Message(m.role, content, m.turn, calls)
                for m, (content, calls) in zip(messages, both, strict=True)
            ]
        return messages, marks

    def _without_thinking(self, turn: Turn) -> Turn:
        if turn.role != "assistant":
            return turn
        said, count = THINKING.subn("", turn.content)
        if count and not said and not turn.calls:
            raise UserError(
                "an assistant turn is nothing but thinking, and data.thinking is drop",
                cure="take the row out, or keep what is thought: data.thinking: mask",
                code="empty",
            )
        self.counts.add("thinking_dropped", count)
        return Turn(turn.role, said, turn.calls)

    def _rendered(self, turns: Sequence[Turn]) -> tuple[list[Run], str]:
        """A conversation as runs of text, and the characters that mark in them."""
        messages, marks = self._messages(turns)
        with _refusals_told():
            layout = self._layouts.of(messages, generation=False)
        if layout is None:
            raise rewritten()
        return self._runs(layout), marks

    def _runs(self, layout: Layout) -> list[Run]:
        found, masked = runs(layout, apart=self._thinking == "mask")
        self.counts.add("thinking_masked", masked)
        return found

    def _context(self, messages: Sequence[Message]) -> Layout:
        """The prompt; where earlier answers cannot be told apart in it, as one run."""
        with _refusals_told():
            layout = self._layouts.of(messages, generation=True)
            return layout or Layout(self._layouts.renderer.text(messages, generation=True), ())

    def _pieces(self, runs: Sequence[Run], marks: str) -> list[Piece]:
        pieces: list[Piece] = []
        for run in runs:
            tokens = self._next(pieces, run.text, marks)
            if run.answer and not run.ended:
                tokens.append(self._eos())
            if tokens or run.answer:
                pieces.append(Piece(tuple(tokens), run.turn, answer=run.answer))
        self._checked(pieces[0].tokens if pieces else ())
        return pieces

    def _next(self, pieces: list[Piece], text: str, marks: str) -> list[int]:
        if not text:
            return []
        if pieces:
            return self._encoder.encode(text, pieces[-1].tokens[-1], marks)
        tokens = self._encoder.encode(text, None, marks)
        if self._bos in self._head and tokens[:1] != [self._bos]:
            return [self._bos, *tokens]
        return tokens

    def _eos(self) -> int:
        eos = self.tokenizer.eos_token_id
        if eos is None:
            raise UserError(
                "neither the chat template nor the tokenizer has an end-of-turn token, so a model "
                "could never learn to stop",
                cure="set the tokenizer's eos_token, or take another model",
                code="no_end_token",
            )
        return int(eos)

    def _checked(self, tokens: Sequence[int]) -> list[int]:
        if self._bos in self._head and tuple(tokens[:2]) == (self._bos, self._bos):
            raise UserError(
                "the beginning-of-text token stands twice at the beginning",
                "data.template",
                "take it out of the template: the tokenizer writes it",
                "doubled_bos",
            )
        return list(tokens)

    def _probe(self) -> list[int]:
        """What the template does, said once; returns the end tokens."""
        ends, said = self._layouts.probe()
        if self.tokenizer.chat_template:
            self.said += [*self._roles.said, *said]
        ids = [self.tokenizer.convert_tokens_to_ids(end) for end in ends]
        eos = self.tokenizer.eos_token_id
        return sorted({*ids, *([] if eos is None else [eos])})


def surroundings(tokenizer: Any, *, target: bool = False) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer itself puts before and after a text, or after a target."""
    name = "text_target" if target else "text"
    bare = tokenizer(**{name: "x"}, add_special_tokens=False).input_ids
    whole = tokenizer(**{name: "x"}).input_ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise AssertionError("a tokenizer whose special tokens change its text")


def _between(tokenizer: Any, head: Sequence[int], tail: Sequence[int]) -> list[int]:
    """Ids between two texts."""
    bare = tokenizer("x", add_special_tokens=False).input_ids
    both = tokenizer("x", "x").input_ids
    between: list[int] = both[len(head) + len(bare) : len(both) - len(tail) - len(bare)]
    # A decoder has none: two texts would run together.
    return between or list(tokenizer("\n", add_special_tokens=False).input_ids)


def _variables(tokenizer: Any) -> dict[str, Any]:
    return {
        name: [str(word) for word in value] if isinstance(value, list | tuple) else str(value)
        for name, value in tokenizer.special_tokens_map.items()
    }


@contextmanager
def _refusals_told() -> Iterator[None]:
    """What a template raises becomes a user's error."""
    try:
        yield
    except TemplateRefusedError as refusal:
        raise UserError(
            f"the chat template refuses this conversation: {refusal}",
            "data.template",
            "mend the turns, or give a template of your own",
            "template_refuses",
        ) from None
