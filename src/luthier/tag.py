"""Asking a token classifier: a run, a folder, an adapter or a hub id that tags words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.core.codec import joined
from luthier.core.errors import RecipeError
from luthier.core.tags import types
from luthier.data.formats._spans import words
from luthier.data.template import TokenizerCodec
from luthier.evaluation.tagging import marked, read_words, sentence_examples
from luthier.models.load import Loaded, load
from luthier.models.token_heads import TaggerModel


@dataclass(frozen=True)
class Span:
    """An entity in a text.

    Attributes:
        text: what it says.
        type: what it is.
        start: its first character in the text.
        stop: one past its last.
        score: mean probability of its words' tags.
    """

    text: str
    type: str
    start: int
    stop: int
    score: float


@dataclass(frozen=True)
class Tagging:
    """What a token classifier says of one text.

    Attributes:
        text: the text; of words that were given, these with a space between.
        words: its words.
        tags: the likeliest tag of each.
        spans: the entities that the tags mark; none where tags mark no entities.
    """

    text: str
    words: tuple[str, ...]
    tags: tuple[str, ...]
    spans: tuple[Span, ...]
    _marked: str

    def __str__(self) -> str:
        """The text with its entities in brackets, or with a tag behind every word."""
        return self._marked


class Tagger:
    """A model that tags the words of texts.

    >>> tagger = Tagger.open("runs/entities")                          # doctest: +SKIP
    >>> print(tagger.predict(["She lives in New York."])[0])           # doctest: +SKIP
    She lives in [New York LOC].

    Attributes:
        types: the types of entities that it knows; none where its tags mark no entities.
        context: tokens that are read at once; longer texts are read in windows.
        notices: what the user should know about the predictions so far (texts in windows).
    """

    def __init__(self, loaded: Loaded) -> None:
        if not isinstance(loaded.model, TaggerModel):
            raise RecipeError(
                f"'{loaded.name}' tags no words",
                cure="open what classifies with luthier.classify, what talks with luthier.chat",
            )
        self.context = loaded.context
        self.notices = list(loaded.said)
        self._model = loaded.model
        self.types = sorted(types(self._model.labels))
        self._codec = TokenizerCodec(loaded.tokenizer, max_length=loaded.context)

    @classmethod
    def open(cls, name: str) -> Tagger:
        """A token classifier by name.

        Raises:
            UserError: not found, or no token classifier.
        """
        return cls(load(name))

    def predict(self, texts: Sequence[str | Sequence[str]]) -> list[Tagging]:
        """The tags and entities of every text, in order.

        Args:
            texts: texts, or their words as lists. Of a text, letters and digits together are a
                word, and every other sign by itself; how the training rows divide words matters.
        """
        if not texts:
            return []
        whole = []
        for text in texts:
            whole.append((text, words(text)) if isinstance(text, str) else joined(text))
        split = [[text[a:b] for a, b in places] for text, places in whole]
        examples, notices = sentence_examples(split, self._codec)
        self.notices += notices
        read = read_words(self._model, examples)
        names = self._model.labels
        made = []
        for (text, places), said, found in zip(whole, split, read.values(), strict=True):
            tags = found.tags(names, len(said))
            known = found.entities(names) if types(names) else None
            spans = []
            for each, score in known or ():
                start, stop = places[each.start][0], places[each.stop - 1][1]
                spans.append(Span(text[start:stop], each.type, start, stop, score))
            shown = marked(text, places, tags, None if known is None else [e for e, _ in known])
            made.append(Tagging(text, tuple(said), tuple(tags), tuple(spans), shown))
        return made
