"""Which token sees which, where the segment rule is written as a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sibling_mask(
    before: int, lengths: Sequence[int], window: int | None, causal: bool, device: torch.device
) -> Tensor:
    """Who sees whom of siblings behind ``before`` tokens of their ancestors: bool."""
    if len(lengths) == 1:
        return window_mask(lengths[0], before + lengths[0], window, causal, device)
    sizes = torch.tensor(lengths, device=device)
    owner = torch.arange(len(lengths), device=device).repeat_interleave(sizes)
    place = torch.arange(len(owner), device=device) - (sizes.cumsum(0) - sizes)[owner] + before
    owners = torch.cat([owner.new_full((before,), -1), owner])
    places = torch.cat([torch.arange(before, device=device), place])
    distance = place[:, None] - places
    mask = (owners < 0) | (owner[:, None] == owners)
    if causal:
        mask = mask & (distance >= 0)
    return mask if window is None else mask & (distance.abs() < window)


def window_mask(
    queries: int, keys: int, window: int | None, causal: bool, device: torch.device
) -> Tensor:
    """Who sees whom when the queries are the last of the keys: ``[queries, keys]`` bool."""
    distance = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(
        keys, device=device
    )
    mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        # Exclusive bounds: transformers gives bidirectional layers half of their window plus one.
        mask = mask & (distance.abs() < window)
    return mask
