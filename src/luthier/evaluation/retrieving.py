"""A sentence encoder on held-out pairs: where each anchor finds its positive among all texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.core.records import Example, Scored
from luthier.evaluation.measure import batches
from luthier.models.embedder import HEAD, EmbeddingModel

#: Anchors compared with the corpus at a time.
_ROWS = 512


def vectors(model: EmbeddingModel, examples: Sequence[Example]) -> Tensor:
    """Every segment of every example as one vector ``[S, H]``, in order, on the CPU."""
    counts = [len(example.segments) for example in examples]
    starts = np.cumsum([0, *counts])
    made: Tensor | None = None
    for indices, batch in batches(model, examples):
        every = torch.arange(sum(counts[i] for i in indices), device=model.device)
        found = model.pooled(batch, model.hidden(batch), every).float().cpu()
        if made is None:
            made = torch.empty(int(starts[-1]), found.shape[1])
        places = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in indices])
        made[torch.from_numpy(places)] = found
    assert made is not None, "no example"
    return made


def score_retrieval(
    model: EmbeddingModel, examples: Sequence[Example], codec: Any, *, cosine: bool
) -> list[Scored]:
    """Every anchor's search among the positives and negatives of all examples.

    Texts that stand in several rows are one; every positive of an anchor's text is right, and the
    others of them are left out of its ranking. What lies as near as the right text counts as
    nearer: vectors that are all alike find nothing.
    """
    found = vectors(model, examples)
    if cosine:
        found = F.normalize(found, dim=-1)
    starts = np.cumsum([0, *(len(e.segments) for e in examples)])
    names = [[*e.targets[HEAD]["text"], *e.targets["candidate"]["text"]] for e in examples]
    corpus: dict[int, tuple[int, int, int]] = {}
    for i, own in enumerate(names):
        for j, name in enumerate(own[1:], start=1):
            corpus.setdefault(int(name), (int(starts[i]) + j, i, j))
    column = {name: place for place, name in enumerate(corpus)}
    where = [(i, j) for _, i, j in corpus.values()]
    texts = found[torch.tensor([row for row, _, _ in corpus.values()])]
    right: dict[int, set[int]] = {}
    for own in names:
        right.setdefault(int(own[0]), set()).add(column[int(own[1])])
    scored: list[Scored] = []
    for at in range(0, len(examples), _ROWS):
        chosen = range(at, min(at + _ROWS, len(examples)))
        near = (found[torch.from_numpy(starts[chosen.start : chosen.stop])] @ texts.T).numpy()
        for row, i in zip(near, chosen, strict=True):
            place, others = column[int(names[i][1])], right[int(names[i][0])]
            best = where[int(row.argmax())]
            scored.append(
                Scored(
                    examples[i].origin,
                    prompt=_text(examples[i], 0, codec),
                    answer=_text(examples[best[0]], best[1], codec),
                    references=(_text(examples[i], 1, codec),),
                    rank=_rank(row, place, others - {place}),
                )
            )
    return scored


def _rank(near: npt.NDArray[np.float32], own: int, also_right: set[int]) -> int:
    before = int((near >= near[own]).sum()) - 1
    return 1 + before - sum(bool(near[place] >= near[own]) for place in also_right)


def _text(example: Example, segment: int, codec: Any) -> str:
    text: str = codec.decode(example.segments[segment].tokens.tolist())
    return text.strip()
