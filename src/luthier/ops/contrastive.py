"""Each anchor's positive among all candidates of a step: the loss of embedding tuning.

``B`` examples, ``M`` candidates an example (its positive first, then its hard negatives), ``H``
hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """All texts of a step.

    Attributes:
        anchors: ``[B, H]``.
        candidates: ``[B, M, H]``.
        there: ``[B, M]`` which candidates exist; rows may have fewer negatives than others.
        anchor_text: ``[B]`` a number that two anchors share if they are the same text.
        candidate_text: ``[B, M]`` the same of candidates.
    """

    anchors: Tensor
    candidates: Tensor
    there: Tensor
    anchor_text: Tensor
    candidate_text: Tensor

    def with_live(self, places: Tensor, anchors: Tensor, candidates: Tensor) -> Step:
        """The same with some examples' vectors, ``[b]`` places, replaced by others."""
        return replace(
            self,
            anchors=self.anchors.to(anchors).index_copy(0, places, anchors),
            candidates=self.candidates.to(candidates).index_copy(0, places, candidates),
        )


def ranking_loss(
    step: Step, rows: Tensor, *, scale: float, cosine: bool = True, symmetric: bool = False
) -> Tensor:
    """``-log softmax_c(scale * sim(a, c))[positive of a]`` of chosen examples: ``[b]``.

    In-batch negatives (Henderson et al. 2017, arXiv 1705.00652), which is InfoNCE (van den Oord et
    al. 2018, arXiv 1807.03748) at temperature ``1 / scale``: every other example's candidates are
    negatives of an anchor. A candidate with the very text of the anchor's own positive, and the
    positive of another row with the same anchor, are none: they would be right as well.

    Args:
        step: all texts.
        rows: ``[b]`` places of the examples whose loss is asked for.
        scale: factor on the similarity.
        cosine: whether vectors are normalised first.
        symmetric: the mean with the same loss of positives among all anchors.
    """
    anchors, flat = step.anchors, step.candidates.flatten(0, 1)
    if not len(rows):  # still a gradient of zero for every parameter
        return 0 * (anchors.sum(-1)[:0] + flat.sum())
    wide = torch.promote_types(anchors.dtype, torch.float32)
    anchors, flat = anchors.to(wide), flat.to(wide)
    if cosine:
        anchors, flat = F.normalize(anchors, dim=-1), F.normalize(flat, dim=-1)
    width = step.candidates.shape[1]
    own = rows * width
    twins = step.candidate_text[:, 0][rows]
    same_anchor = step.anchor_text[rows, None] == step.anchor_text[None, :]
    right = step.candidate_text.flatten()[None, :] == twins[:, None]
    right.view(len(rows), -1, width)[:, :, 0] |= same_anchor
    hidden = right | ~step.there.flatten()[None, :]
    losses = _picked(scale * anchors[rows] @ flat.T, own, hidden)
    if not symmetric:
        return losses
    same_positive = twins[:, None] == step.candidate_text[None, :, 0]
    scores = scale * flat[own] @ anchors.T
    return (losses + _picked(scores, rows, same_anchor | same_positive)) / 2


def _picked(scores: Tensor, own: Tensor, hidden: Tensor) -> Tensor:
    """``-log softmax`` at each row's own column, hidden columns but that one left out."""
    hidden = hidden.scatter(1, own[:, None], False)
    return F.cross_entropy(scores.masked_fill(hidden, -torch.inf), own, reduction="none")
