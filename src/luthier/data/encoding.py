"""Text to tokens in pieces: a piece's tokens are those it would have in the middle of a text.

Joined pieces must not differ from what a model meets at inference, where a prompt is tokenised
before anyone knows its answer. Two things stand in the way. Tokenizers of the sentencepiece family
put a space before whatever they are given, so pieces are encoded behind an anchor that is then
taken off. And text in a turn may spell a special token: it stays text.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from luthier.core.errors import UserError
from luthier.data.rendering import split_marked

_ANCHORS = ("\n", ".", "a", "0")
_SPACES = "▁Ġ "


_COUNTING = threading.Lock()


class Tally(Counter[str]):
    """Counts that threads may add to."""

    def add(self, name: str, number: int = 1) -> None:
        """Adds to a count; adding nothing leaves no trace."""
        if number:
            with _COUNTING:
                self[name] += number


class Encoder:
    """A fast tokenizer, piece by piece.

    Attributes:
        added: the tokens that are matched in text before anything else, by id.
        special: matches the text of any special token (see below).
        control: matches the text of any added token.
        prefixes: whether the tokenizer writes a space before a text, so that its tokens depend on
            what stands before it.
        counts: ``spurious_space``, where a space before a piece could not be avoided.

    A special token is one that the tokenizer calls special; other added tokens (``<think>``) are
    words of the model's language, which turns may use.
    """

    def __init__(self, tokenizer: Any, counts: Tally) -> None:
        self.counts = counts
        self._backend = tokenizer.backend_tokenizer
        self._prepare()
        self.added: dict[int, Any] = dict(tokenizer.added_tokens_decoder)
        words = {i: t for i, t in self.added.items() if t.content and not t.content.isspace()}
        self.special = _any_of(token.content for token in words.values() if token.special)
        self.control = _any_of(token.content for token in words.values())
        self._unknown = tokenizer.unk_token_id
        self._special_ids = {i for i, t in words.items() if t.special}
        # Tokens matched in normalized text can be spelt in ways that no pattern here finds.
        self._normalizes = self._backend.normalizer is not None and any(
            token.special and token.normalized for token in words.values()
        )
        sample = self._backend.encode("x", add_special_tokens=False).tokens
        if not sample:
            raise UserError(
                "the tokenizer turns text into no tokens: its vocabulary is missing",
                cure="check that its tokenizer.json (or vocabulary and merges) was found",
                code="empty_tokenizer",
            )
        self.prefixes = not "".join(sample).startswith("x")
        self._ahead: dict[str, list[int]] = {}

    def _prepare(self) -> None:
        # A tokenizer file may carry truncation or padding, which would cut without a word.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = False

    def ahead(self, texts: Iterable[str]) -> None:
        """Puts texts into tokens together, in the tokenizer's threads; what comes next finds them.

        What the last call made is forgotten.
        """
        wanted = list(dict.fromkeys(texts))
        self._ahead = self._fast(wanted) if wanted else {}

    def encode(self, text: str, last: int | None = None, marks: str = "") -> list[int]:
        """Tokens of text.

        Args:
            text: a piece; runs between marks are taken literally.
            last: the token before it, ``None`` at the start of a sequence.
            marks: the two characters that mark, or none.
        """
        tokens: list[int] = []
        for run, literal in split_marked(text, marks):
            before = tokens[-1] if tokens else last
            tokens += self._literal(run, before) if literal else self._run(run, before)
        return tokens

    def plain(self, text: str) -> tuple[list[int], int]:
        """Tokens of a text in which nothing is special, and how often it spelt a special token."""
        return self.behind(text, ()), len(self.special.findall(text))

    def behind(self, text: str, before: Sequence[int]) -> list[int]:
        """Tokens of a text in which nothing is special, as they follow others."""
        tokens = list(before)
        at = 0
        for match in self.special.finditer(text):
            tokens += self._piece(text[at : match.start()], tokens)
            tokens += self._literal(match.group(), tokens[-1] if tokens else None)
            at = match.end()
        return [*tokens, *self._piece(text[at:], tokens)][len(before) :]

    def placed(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of a text that spells no special token, and the characters each stands for."""
        tokens = self._piece(text, ())  # says what it refuses, and keeps the tokenizer as it was
        found = self._backend.encode(text, add_special_tokens=False)
        assert found.ids == tokens, "a text at its beginning is tokenised as it is"
        return tokens, [(start, stop) for start, stop in found.offsets]

    def _piece(self, text: str, before: Sequence[int]) -> list[int]:
        return self._run(text, before[-1] if before else None) if text else []

    def _run(self, text: str, last: int | None) -> list[int]:
        tokens = self._behind(self._ids, text, last)
        if self._normalizes:
            found = sum(token in self._special_ids for token in tokens)
            found -= 0 if self._unknown is None else tokens.count(self._unknown)
            if found > len(self.special.findall(text)):
                raise UserError(
                    "a text spells a special token once the tokenizer has normalized it",
                    cure="take out what looks like a special token",
                    code="special_text",
                )
        return tokens

    def _ids(self, text: str) -> list[int]:
        known = self._ahead.get(text)
        return self._fast([text])[text] if known is None else known.copy()

    def _fast(self, texts: list[str]) -> dict[str, list[int]]:
        """The tokenizer's fast way, which keeps no offsets: a fifth of the time."""
        backend = self._backend
        if backend.truncation is not None or backend.padding is not None:
            self._prepare()  # someone called the tokenizer with truncation or padding since
        if backend.encode_special_tokens:
            backend.encode_special_tokens = False
        found = backend.encode_batch_fast(texts, add_special_tokens=False)
        return {text: each.ids for text, each in zip(texts, found, strict=True)}

    def _raw(self, text: str) -> list[int]:
        """The tokenizer's pipeline without its added tokens."""
        backend = self._backend
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [text]
        if backend.pre_tokenizer is not None:
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in backend.model.tokenize(word)]

    def _literal(self, text: str, last: int | None) -> list[int]:
        tokens = self._behind(self._raw, text, last)
        spelt = self._special_ids.intersection(tokens)
        if not spelt or (len(text) == 1 and spelt == {self._unknown}):
            return tokens
        if len(text) == 1:
            raise UserError(
                f"the text of a turn spells the special token {text!r}, which this tokenizer "
                "cannot write as plain text",
                cure="take it out of the text",
                code="special_text",
            )
        # The model's own vocabulary holds the word (Unigram's do): it cannot come about in halves.
        head = self._literal(text[:1], last)
        return head + self._literal(text[1:], head[-1] if head else last)

    def _behind(self, encode: Callable[[str], list[int]], text: str, last: int | None) -> list[int]:
        if not self.prefixes or last is None:
            return encode(text)
        anchors: tuple[str, ...] = _ANCHORS
        added = self.added.get(last)
        # Some of these tokenizers write a space after a special token as well, and their models
        # were trained so: the anchor is then that token. One that eats spaces (rstrip) would eat
        # the piece's own.
        if added is not None and encode == self._ids and not (added.rstrip and text[0].isspace()):
            anchors = (added.content, *_ANCHORS)
        for anchor in anchors:
            head = encode(anchor)
            if not self._holds(head):
                continue
            whole = encode(anchor + text)
            if whole[: len(head)] == head:
                return whole[len(head) :]
        tokens = encode(text)
        if tokens and self._word(tokens[0]) in ("▁", "Ġ"):
            return tokens[1:]
        self.counts.add("spurious_space")
        return tokens

    def _holds(self, head: list[int]) -> bool:
        """Whether an anchor is there in tokens: normalizers may drop it, or not know it."""
        if self._unknown is not None and self._unknown in head:
            return False
        return bool("".join(map(self._word, head)).strip(_SPACES))

    def _word(self, token: int) -> str:
        return self._backend.id_to_token(token) or ""


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(set(words), key=lambda word: (-len(word), word))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
