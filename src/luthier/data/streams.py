"""Text to tokens for an encoder-decoder: what the encoder reads, what the decoder writes.

A source is tokenised exactly as plain transformers tokenises it (``tokenizer(text)``, and
``tokenizer(text_target=text)`` for a target where the tokenizer tells them apart by language), so
that what was trained here answers alike elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from typing import Any

from luthier.core.codec import Piece, Streams
from luthier.core.errors import RecipeError, UserError
from luthier.core.records import Turn
from luthier.data.rendering import mark
from luthier.data.template import TokenizerCodec, surroundings

_FIELDS = ("source", "prompt")


class PairCodec(TokenizerCodec):
    """:class:`luthier.core.codec.Codec` for models with an encoder and a decoder.

    Args:
        tokenizer: a fast transformers tokenizer.
        template: what stands around a source, as ``"summarize: {source}"``; nothing if unset.
        start: what the decoder is fed first; ``None`` where that is the target's last token.
        languages: of source and target, where the tokenizer knows several (mBART, NLLB).
        max_length: tokens that either side may have.

    Raises:
        UserError: no fast tokenizer, no end token, or languages that it does not know.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str | None = None,
        start: int | None,
        languages: tuple[str | None, str | None] = (None, None),
        max_length: int,
    ) -> None:
        own = tokenizer.chat_template
        _speak(tokenizer, languages)
        super().__init__(tokenizer, max_length=max_length)
        tokenizer.chat_template = own
        before, after = _parts(template)
        self._before, self._after = before, after
        self._start = start
        self._target_head, tail = surroundings(tokenizer, target=True)
        eos = self._eos()
        self._target_tail = tail if eos in tail else [*tail, eos]
        told = f"as {template!r}" if template else "as it stands"
        self.said = [f"the encoder reads each source {told}, the decoder writes the target"]
        if eos not in self._tail:
            self.said.append("the tokenizer puts no end token behind a source")

    @property
    def end_tokens(self) -> list[int]:
        """The end-of-text token alone: there are no turns."""
        return [self._eos()]

    @property
    def decoder_prompt(self) -> list[int]:
        """The start token, and the target's language where the tokenizer writes it first."""
        first = self._start if self._start is not None else self._target_tail[-1]
        return [first, *self._target_head]

    def begin(self, generation: Any) -> None:
        """Tells a generation config what plain transformers feeds the decoder at first."""
        first, *more = self.decoder_prompt
        generation.decoder_start_token_id = first
        if more:
            generation.forced_bos_token_id = more[0]

    def streams(self, source: str, target: str) -> Streams:
        """A source in its template, the target shifted right, the target with its end token."""
        written = self._target(target)
        first = self._start if self._start is not None else written[-1]
        return Streams(tuple(self._source(source)), (first, *written[:-1]), tuple(written))

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """What the encoder reads of the last thing that was said.

        Raises:
            UserError: there is a system turn, or nobody asks anything.
        """
        if any(turn.role == "system" for turn in turns):
            raise UserError(
                "an encoder-decoder has no place for a system turn",
                cure="write it into the template: data.template: 'Be brief. {source}'",
                code="no_system",
            )
        asked = [turn.content for turn in turns if turn.role == "user"]
        if not asked:
            raise UserError("a conversation without a user turn", code="no_turns")
        return self._source(asked[-1])

    def dialogue(self, turns: Sequence[Turn]) -> list[Piece]:
        """An encoder-decoder has no one sequence for a conversation."""
        raise UserError(
            "an encoder-decoder learns from pairs of a source and a target, not from conversations",
            cure="set objective: seq2seq",
            code="pairing",
        )

    last_turn = dialogue

    def document(self, text: str) -> list[int]:
        """A text as the encoder reads it, without the template."""
        return self._checked([*self._head, *self._plain(text), *self._tail])

    def fingerprint(self) -> str:
        """Hash of everything that decides which tokens a pair becomes."""
        around = [self._head, self._tail, self._target_head, self._target_tail]
        parts: list[Any] = [super().fingerprint(), self._before, self._after, self._start, around]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _source(self, text: str) -> list[int]:
        [marked], marks, spelt = mark([text], self._encoder.special)
        self.counts.add("special_text", spelt)
        whole = f"{self._before}{marked}{self._after}"
        return self._checked([*self._head, *self._encoder.encode(whole, None, marks), *self._tail])

    def _target(self, text: str) -> list[int]:
        return [*self._target_head, *self._plain(text), *self._target_tail]

    def _plain(self, text: str) -> list[int]:
        tokens, spelt = self._encoder.plain(text)
        self.counts.add("special_text", spelt)
        return tokens


def _speak(tokenizer: Any, languages: tuple[str | None, str | None]) -> None:
    """Tells a tokenizer of several languages which two are meant."""
    for name, language in zip(("src_lang", "tgt_lang"), languages, strict=True):
        if language is None:
            continue
        setting = "source_language" if name == "src_lang" else "target_language"
        if not hasattr(tokenizer, name):
            raise RecipeError(
                f"objective.{setting}: {type(tokenizer).__name__} knows no languages",
                cure="say it in the source: data.template: 'to Spanish: {source}'",
            )
        if tokenizer.convert_tokens_to_ids(language) in (None, tokenizer.unk_token_id):
            raise RecipeError(f"objective.{setting}: the tokenizer has no language '{language}'")
        setattr(tokenizer, name, language)


def _parts(template: str | None) -> tuple[str, str]:
    """What a template writes before and after a source.

    Raises:
        RecipeError: it does not name the source once, or names something else.
    """
    if template is None:
        return "", ""
    before, after, found = "", "", 0
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            if found:
                after += literal
            else:
                before += literal
            if name is not None:
                if name not in _FIELDS or spec or conversion:
                    raise ValueError(f"'{{{name}}}' is not {{source}}")
                found += 1
        if found != 1:
            raise ValueError("it must have {source} once")
    except ValueError as error:
        raise RecipeError(
            f"the template {template!r}: {error}",
            "data.template",
            "of an encoder-decoder it is what stands around the source, as 'summarize: {source}'; "
            "double any other brace: {{ }}",
            "template",
        ) from None
    return before, after
