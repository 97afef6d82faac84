"""How a segment becomes one vector, and how a sentence encoder says that it wants it done.

``N`` tokens, ``R`` pooled segments, ``H`` hidden size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from luthier.core.records import Batch

#: Where sentence-transformers keep it, and what they call it.
FILE = "1_Pooling/config.json"
#: In a config: how the sentence encoder pooled that the model was made of.
NOTE = "sentence_pooling"
MODES = {"mean": "mean_tokens", "first": "cls_token", "last": "lasttoken"}


def pool(batch: Batch, hidden: Tensor, segments: Tensor, pooling: str) -> Tensor:
    """These segments as one vector each: ``[N, H] -> [R, H]``; a mean is taken in float32."""
    device = hidden.device
    starts = torch.tensor(batch.segments.starts, device=device)
    lengths = torch.tensor(batch.segments.lengths, device=device)
    if pooling != "mean":
        last = pooling == "last"
        return hidden.index_select(0, (starts + (lengths - 1) * last)[segments])
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
    owner = owner[: len(hidden)]  # a row's filling has a segment and no states
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    sums = wide.new_zeros(len(lengths), hidden.shape[1]).index_add(0, owner, wide)
    return sums.index_select(0, segments) / lengths[segments, None]


def sentence_pooling(name: str, options: dict[str, Any], config: Any) -> str | None:
    """What a sentence encoder says of its pooling, if it is one.

    What was made of one by other training says it in its ``config``.
    """
    from transformers.utils.hub import cached_file

    if noted := getattr(config, NOTE, None):
        return str(noted)
    keep = {k: v for k, v in options.items() if k in ("revision", "local_files_only")}
    found = cached_file(
        name,
        FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **keep,
    )
    if found is None:
        return None
    said = json.loads(Path(found).read_text(encoding="utf-8"))
    chosen = [ours for ours, theirs in MODES.items() if said.get(f"pooling_mode_{theirs}")]
    return chosen[0] if len(chosen) == 1 else None
