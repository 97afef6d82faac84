"""Learned vectors before every example of a batch, whatever its layout.

``P`` vectors, ``N`` tokens, ``H`` hidden size, ``T`` columns of a padded batch.

Packed, they are one more segment at the front, the parent of every root: an example sees them as
its own beginning, and its positions go on from theirs. Padded, they stand at the front of each row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from luthier.core.records import Batch, SegmentTable


def soft_prompt(module: nn.Module) -> Tensor | None:
    """``[P, H]`` of a model that was tuned so, else ``None``."""
    config = getattr(module, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return None
    made: Tensor = module.get_prompt(1)[0]  # type: ignore[operator]
    return made


def prepended(batch: Batch, prompt: Tensor, embeddings: Any, first: int) -> tuple[Batch, Tensor]:
    """The batch as it is with the vectors in front, and what the layers read.

    Args:
        batch: of tokens.
        prompt: ``[P, H]``.
        embeddings: token ids to ``[…, H]``.
        first: where positions begin.

    Returns:
        The batch, its tokens those of the examples alone; and its rows of vectors,
        ``[1, P + N, H]`` or ``[rows, P + T, H]``.
    """
    count, rows = len(prompt), batch.tokens.shape[0]
    wide = prompt.to(embeddings.weight.dtype if hasattr(embeddings, "weight") else prompt.dtype)
    vectors = torch.cat([wide.expand(rows, -1, -1), embeddings(batch.tokens)], dim=1)
    ahead = torch.arange(first, first + count, device=batch.positions.device)
    positions = torch.cat([ahead.expand(rows, -1), batch.positions + count], dim=1)
    mask = batch.attention_mask
    if mask is not None:
        mask = torch.cat([mask.new_ones(rows, count), mask], dim=1)
    old = batch.segments
    table = SegmentTable(
        (0, *(start + count for start in old.starts)),
        (count, *old.lengths),
        (-1, *(parent + 1 for parent in old.parents)),  # a root's is -1: the vectors
        old.causal,
    )
    return replace(batch, positions=positions, segments=table, attention_mask=mask), vectors


class Prompted:
    """A tuned model as generation sees it: transformers' own, the vectors in front of each row.

    Args:
        module: the peft model.
        base: the transformers model inside.
    """

    def __init__(self, module: nn.Module, base: Any) -> None:
        self._module, self._base = module, base

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def generate(self, *, input_ids: Tensor, attention_mask: Tensor, **settings: Any) -> Any:
        """As transformers' own; the vectors are not among the tokens that come back.

        They stand next to the tokens: what fills a row up comes before both, for a sliding window
        counts it.
        """
        prompt = soft_prompt(self._module)
        assert prompt is not None
        table = self._base.get_input_embeddings()
        wide = prompt.to(table.weight.dtype)
        rows = []
        for embedded, seen in zip(table(input_ids), attention_mask.bool(), strict=True):
            rows.append(torch.cat([embedded[~seen], wide, embedded[seen]]))
        counts = attention_mask.sum(1, keepdim=True) + len(prompt)
        places = torch.arange(input_ids.shape[1] + len(prompt), device=input_ids.device)
        return self._base.generate(
            input_ids=input_ids,
            inputs_embeds=torch.stack(rows),
            attention_mask=(places >= len(places) - counts).to(attention_mask.dtype),
            **settings,
        )
