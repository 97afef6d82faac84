"""A token classifier on sentences: a tag for every word, and the entities that they mark.

Windows of a long sentence are laid together again before anything is read or counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luthier.core.codec import Place, joined
from luthier.core.records import Example, Floats, Ints, Origin, Record, Scored, Tagged
from luthier.core.tags import OUTSIDE, Entity, entities, types
from luthier.data.formats._spans import words
from luthier.data.length import fit
from luthier.evaluation.measure import batches
from luthier.metrics._rows import divide
from luthier.models.token_heads import HEAD, TaggerModel


@dataclass(frozen=True)
class Read:
    """What a model says of a sentence's words, of those that have a token.

    Attributes:
        words: ``[W]`` which words, ascending.
        labels: ``[W]`` their true classes, where these are known.
        chances: ``[W, K]`` probabilities of the classes.
    """

    words: Ints
    labels: Ints
    chances: Floats

    def tags(self, names: Sequence[str], count: int) -> list[str]:
        """The likeliest tag of each of a sentence's words; of one without a token ``O``."""
        made = [OUTSIDE] * count
        for word, best in zip(self.words.tolist(), self.chances.argmax(-1).tolist(), strict=True):
            made[word] = names[best]
        return made

    def entities(self, names: Sequence[str]) -> list[tuple[Entity, float]]:
        """The entities that the likeliest tags mark, and how sure the model is of each.

        A word without a token is inside of an entity where the words around it are. The figure is
        the mean probability of the words' likeliest tags.
        """
        tags = [names[i] for i in self.chances.argmax(-1).tolist()]
        sure = self.chances.max(-1)
        found = []
        for each in entities(tags):
            first, last = int(self.words[each.start]), int(self.words[each.stop - 1])
            share = float(sure[each.start : each.stop].mean())
            found.append((Entity(first, last + 1, each.type), share))
        return found


def read_words(model: TaggerModel, examples: Sequence[Example]) -> dict[Origin, Read]:
    """Every sentence's words as a model reads them, each at its first token."""
    found: dict[int, Floats] = {}
    for indices, batch in batches(model, examples):
        table = batch.targets[HEAD]
        states = model.pooled(batch, model.hidden(batch), table["position"])
        chances = model.outputs(HEAD, states).float().softmax(-1).cpu().numpy()
        owner = table["example"].cpu().numpy()
        found |= {index: chances[owner == number] for number, index in enumerate(indices)}
    windows: dict[Origin, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        windows[example.origin].append(index)
    made = {}
    for origin, indices in windows.items():
        tables = [examples[index].targets[HEAD] for index in indices]
        words = np.concatenate([table["word"] for table in tables])
        labels = np.concatenate([table["label"] for table in tables])
        each, first = np.unique(words, return_index=True)
        chances = np.concatenate([found[index] for index in indices])
        made[origin] = Read(each, labels[first], chances[first])
    return made


def score_tags(
    model: TaggerModel, examples: Sequence[Example], records: Sequence[Record]
) -> list[Scored]:
    """A token classifier's losses and entities of every sentence that has an example, in order."""
    read = read_words(model, examples)
    names = model.labels
    spans = bool(types(names))
    scored = []
    for record in records:
        if not isinstance(record, Tagged) or record.origin not in read:
            continue
        found = read[record.origin]
        text, places = joined(record.words)
        tags = found.tags(names, len(places))
        true = tuple(entities(record.tags)) if spans else None
        said = tuple(each for each, _ in found.entities(names)) if spans else None
        right = np.take_along_axis(found.chances, found.labels[:, None], 1)[:, 0]
        scored.append(
            Scored(
                record.origin,
                losses=-np.log(np.maximum(right, np.finfo(np.float32).tiny)),
                correct=found.chances.argmax(-1) == found.labels,
                prompt=text,
                answer=marked(text, places, tags, said),
                references=(marked(text, places, record.tags, true),),
                spans=true,
                said_spans=said,
            )
        )
    return scored


def sentence_examples(
    sentences: Sequence[Sequence[str]], codec: Any
) -> tuple[list[Example], list[str]]:
    """Words without tags as a token classifier reads them, and what was cut, in words.

    A sentence that is too long becomes windows of one origin.
    """
    made: list[Example] = []
    notices = []
    for line, sentence in enumerate(sentences, 1):
        aligned = codec.aligned(*joined(sentence))
        every = np.flatnonzero(aligned.owner >= 0)
        position = every[np.diff(aligned.owner[every], prepend=-1) != 0]
        unknown = np.zeros(len(position), dtype=np.int64)
        table = {"position": position, "word": aligned.owner[position], "label": unknown}
        origin = Origin("prompt", line)
        example = Example((aligned.segment,), {HEAD: table}, origin)
        pieces, _ = fit(
            example, codec.max_length, "window", frame=codec.frame, cuts=_before_every_word
        )
        if len(pieces) > 1:
            notices.append(
                f"text {line} of {example.size:,} tokens was read in {len(pieces)} windows: the "
                f"model takes {codec.max_length:,}"
            )
        made += pieces
    return made, notices


def tagging_examples(texts: Sequence[str], codec: Any) -> tuple[list[Example], list[str]]:
    """The same for plain texts, in words as :func:`luthier.data.formats._spans.words` finds."""
    return sentence_examples([[text[a:b] for a, b in words(text)] for text in texts], codec)


def score_texts(
    model: TaggerModel, examples: Sequence[Example], texts: Sequence[str]
) -> list[Scored]:
    """What a token classifier marks in plain texts, of which :func:`tagging_examples` are."""
    read = read_words(model, examples)
    made = []
    for line, text in enumerate(texts, 1):
        origin, places = Origin("prompt", line), words(text)
        found, names = read[origin], model.labels
        spans = [each for each, _ in found.entities(names)] if types(names) else None
        tags = found.tags(names, len(places))
        made.append(Scored(origin, prompt=text, answer=marked(text, places, tags, spans)))
    return made


def _before_every_word(example: Example) -> Ints:
    return np.asarray(example.targets[HEAD]["position"], dtype=np.int64)


def marked(
    text: str, places: Sequence[Place], tags: Sequence[str], spans: Sequence[Entity] | None
) -> str:
    """A text with its entities in brackets, or with every word's tag where tags mark none.

    >>> marked("in New York", [(0, 2), (3, 6), (7, 11)], (), [Entity(1, 3, "LOC")])
    'in [New York LOC]'
    """
    if spans is None:
        words = zip(places, tags, strict=True)
        return " ".join(f"{text[start:stop]}/{tag}" for (start, stop), tag in words)
    return "".join(
        f"[{piece} {kind}]" if kind else piece for piece, kind in pieces(text, places, spans)
    )


def pieces(
    text: str, places: Sequence[Place], spans: Sequence[Entity]
) -> Iterator[tuple[str, str]]:
    """A text in order, cut at its entities: each piece with its type, or none."""
    at = 0
    for entity in spans:
        start, stop = places[entity.start][0], places[entity.stop - 1][1]
        if text[at:start]:
            yield text[at:start], ""
        yield text[start:stop], entity.type
        at = stop
    if text[at:]:
        yield text[at:], ""


def entity_figures(
    names: Sequence[str], before: Sequence[Scored] | None, after: Sequence[Scored]
) -> dict[str, Any] | None:
    """What ``evaluation.json`` says under ``entities``.

    Args:
        names: the tags, in the order of the model's outputs.
        before: held-out sentences as the model before training marked them, where it did.
        after: the same as the trained model marked them.

    Returns:
        ``per_type``, one a type of entities in order of name: support (how many are true),
        precision, recall, f1, and ``f1_before`` (``None`` without a model before). ``None`` where
        tags mark no entities.
    """
    kinds = sorted(types(names) | {e.type for scored in after for e in scored.spans or ()})
    if not any(scored.spans is not None for scored in after):
        return None
    now = _counts(after, kinds)
    earlier = None if before is None else _f1(_counts(before, kinds))
    hits, said, true = now.T
    precision, recall, f1 = divide(hits, said, 0.0), divide(hits, true, 0.0), _f1(now)
    return {
        "per_type": [
            {
                "name": kind,
                "support": int(true[i]),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "f1_before": None if earlier is None else float(earlier[i]),
            }
            for i, kind in enumerate(kinds)
        ]
    }


def _counts(scored: Sequence[Scored], kinds: Sequence[str]) -> Any:
    """``[types, 3]``: entities of each type rightly marked, marked, and true."""
    index: Mapping[str, int] = {kind: i for i, kind in enumerate(kinds)}
    counts = np.zeros((len(kinds), 3))
    for each in scored:
        true, said = set(each.spans or ()), set(each.said_spans or ())
        for column, found in enumerate((true & said, said, true)):
            for entity in found:
                counts[index[entity.type], column] += 1
    return counts


def _f1(counts: Any) -> Any:
    return divide(2 * counts[:, 0], counts[:, 1] + counts[:, 2], 0.0)
