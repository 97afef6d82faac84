"""A masked language model on texts with hidden tokens: its losses, and what it puts in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from luthier.core.records import Example, Ints, Scored
from luthier.evaluation.measure import batches, score_losses
from luthier.models.masked_lm import MaskedModel


def score_masked(
    model: MaskedModel, examples: Sequence[Example], codec: Any, shown: int
) -> list[Scored]:
    """Losses of every hidden token, and of the first ``shown`` texts what the model puts in.

    Args:
        model: the masked language model.
        examples: with their tokens chosen and hidden.
        codec: tokens to text.
        shown: texts to fill in.
    """
    scored = score_losses(model, examples, codec)
    filled = _filled(model, examples[:shown])
    for index, guesses in enumerate(filled):
        example = examples[index]
        true = np.asarray(example.targets[model.table]["token"], dtype=np.int64)
        scored[index] = replace(
            scored[index],
            prompt=_text(model, example, None, codec),
            answer=_text(model, example, guesses, codec),
            references=(_text(model, example, true, codec),),
        )
    return scored


def _filled(model: MaskedModel, examples: Sequence[Example]) -> list[Ints]:
    """The likeliest token of every target."""
    found: dict[int, Ints] = {}
    for indices, batch in batches(model, examples) if examples else ():
        table = batch.targets[model.table]
        rows = model.hidden(batch).index_select(0, table["position"])
        best = model.logits(rows).argmax(-1).cpu().numpy()
        owner = table["example"].cpu().numpy()
        found |= {index: best[owner == number] for number, index in enumerate(indices)}
    return [found[i] for i in range(len(examples))]


def _text(model: MaskedModel, example: Example, tokens: Ints | None, codec: Any) -> str:
    """An example as text, other tokens in the place of its targets where they are given."""
    whole = example.segments[0].tokens.copy()
    if tokens is not None:
        whole[example.targets[model.table]["position"]] = tokens
    body = whole[~np.isin(whole, list(codec.frame))]
    text: str = codec.decode(body.tolist(), special=True)
    return text.strip()
