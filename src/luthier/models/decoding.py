"""Token-by-token decoding with a cache of keys and values: answers enter and leave as they please.

``P`` prompts, ``n`` answers under way, ``T`` tokens of the longest of them, ``K`` heads of keys,
``A`` heads of queries, ``D`` size of a head, ``V`` vocabulary.

Every answer has a slot of its own in the cache, its tokens from the left, so that nothing is ever
shifted or padded. A prompt is computed once, packed beside others, and copied into the slots of
its answers. Where an answer leaves, the last one takes its slot: what is left costs what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luthier.core.records import Batch, SegmentTable
from luthier.models.language_model import CausalModel
from luthier.models.soft_prompt import soft_prompt
from luthier.ops.precision import compute_dtype

#: The name under which transformers knows the attention of one new token.
NAME = "luthier_decoding"
#: Tokens of prompts that are computed together.
_TOGETHER = 8192


class Decoding:
    """A model that answers; see :class:`luthier.core.contracts_models.Decoder`.

    Args:
        model: in evaluation mode while it is asked.
        rows: answers under way at most.
        length: tokens of the longest prompt with its longest answer.
    """

    def __init__(self, model: CausalModel, rows: int, length: int) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, one_token_attention)
        self._model = model
        prompt = soft_prompt(model.module)
        self._ahead = 0 if prompt is None else len(prompt)
        self._slots = _Slots(rows, length + self._ahead)

    def enter(self, prompts: Sequence[Sequence[int]], copies: int) -> Tensor:
        """New prompts, each with so many answers; scores of their first tokens ``[P, V]``."""
        found = []
        waiting: list[Sequence[int]] = []
        for prompt in prompts:
            if waiting and sum(map(len, waiting)) + len(prompt) > _TOGETHER:
                found.append(self._computed(waiting, copies))
                waiting = []
            waiting.append(prompt)
        found.append(self._computed(waiting, copies))
        return torch.cat(found)

    def advance(self, tokens: Tensor) -> Tensor:
        """The next token of every answer ``[n]``, in the order of the slots, to scores."""
        slots, model = self._slots, self._model
        slots.begin(tokens.device)
        model.attend_with(NAME)
        trunk: Any = model.trunk
        out = trunk(
            input_ids=tokens[:, None],
            position_ids=slots.lengths[:, None] + model.position_offset,
            past_key_values=slots.cache,
            use_cache=True,
            slots=slots,
        )
        slots.end()
        return model.logits(out.last_hidden_state[:, 0])

    def leave(self, row: int) -> None:
        """The answer in this slot is done; the last one takes the slot."""
        self._slots.leave(row)

    def _computed(self, prompts: Sequence[Sequence[int]], copies: int) -> Tensor:
        device = self._model.device
        lengths = [len(prompt) for prompt in prompts]
        ends = np.cumsum(lengths)
        tokens = torch.tensor([t for prompt in prompts for t in prompt], device=device)
        places = np.concatenate([np.arange(n) for n in lengths]) + self._model.position_offset
        starts = tuple(int(end - n) for end, n in zip(ends, lengths, strict=True))
        batch = Batch(
            tokens=tokens[None],
            positions=torch.from_numpy(places).to(device)[None],
            segments=SegmentTable(starts, tuple(lengths), (-1,) * len(lengths)),
            targets={},
            origins=(),
            index=torch.arange(len(tokens), device=device),
            size=len(tokens),
        )
        seen = _Seen()
        hidden = self._model.hidden_cached(batch, seen.cache)
        shift = self._ahead
        for start, length in zip(starts, lengths, strict=True):
            first = slice(0, shift), slice(shift + start, shift + start + length)
            self._slots.enter([seen.part(layer, first) for layer in seen.layers], copies)
        return self._model.logits(hidden[torch.from_numpy(ends - 1).to(device)])


class _Slots:
    """Keys and values of the answers under way, a slot each."""

    def __init__(self, rows: int, length: int) -> None:
        self._rows, self._length = rows, length
        self._keys: list[Tensor] = []  # [rows, K, length, D] a layer
        self._values: list[Tensor] = []
        self._used: list[int] = []
        self.cache = _cache(self.update)

    def enter(self, parts: Sequence[tuple[Tensor, Tensor]], copies: int) -> None:
        """Keys and values of a prompt, ``[K, T, D]`` a layer, into so many slots."""
        if not self._keys:  # zeros: what no answer has written yet is weighed with 0, not skipped
            for store, part in ((self._keys, 0), (self._values, 1)):
                for pair in parts:
                    heads, _, size = pair[part].shape
                    shape = (self._rows, heads, self._length, size)
                    store.append(pair[part].new_zeros(shape, dtype=compute_dtype(pair[part])))
        at, length = len(self._used), parts[0][0].shape[1]
        for number, (key, value) in enumerate(parts):
            self._keys[number][at : at + copies, :, :length] = key
            self._values[number][at : at + copies, :, :length] = value
        self._used += [length] * copies

    def leave(self, row: int) -> None:
        """Frees a slot."""
        last = len(self._used) - 1
        length = self._used[last]
        if row != last:
            for store in (*self._keys, *self._values):
                store[row, :, :length] = store[last, :, :length]
        self._used[row] = length
        self._used.pop()

    def begin(self, device: torch.device) -> None:
        """A token more for every answer."""
        assert max(self._used) < self._length, "an answer longer than its slot"
        self.lengths = torch.tensor(self._used, device=device)
        self._numbers = torch.arange(len(self._used), device=device)
        self._widest = max(self._used) + 1
        self._even = min(self._used) + 1 == self._widest
        self._masks: dict[int | None, Tensor | None] = {}

    def end(self) -> None:
        """The token is there."""
        self._used = [used + 1 for used in self._used]

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Puts a layer's new keys and values ``[n, K, 1, D]`` in place; gives all of them."""
        keys, values, count = self._keys[layer], self._values[layer], len(self._used)
        keys[self._numbers, :, self.lengths] = key[:, :, 0].to(keys.dtype)
        values[self._numbers, :, self.lengths] = value[:, :, 0].to(values.dtype)
        return keys[:count, :, : self._widest], values[:count, :, : self._widest]

    def mask(self, window: int | None) -> Tensor | None:
        """Which of its cached tokens an answer sees: ``[n, 1, 1, T]``; ``None`` for all."""
        if window is not None and window >= self._widest:
            window = None
        if window not in self._masks:
            places = torch.arange(self._widest, device=self.lengths.device)
            apart = self.lengths[:, None] - places
            seen = apart >= 0 if window is None else (apart >= 0) & (apart < window)
            everything = self._even and window is None
            self._masks[window] = None if everything else seen[:, None, None]
        return self._masks[window]


class _Seen:
    """Keys and values of prompts as a forward pass makes them, end to end."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.cache = _cache(self._take)

    def _take(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        assert layer == len(self.layers), "layers in another order"
        self.layers.append((key, value))
        return key, value

    @staticmethod
    def part(layer: tuple[Tensor, Tensor], pieces: Sequence[slice]) -> tuple[Tensor, Tensor]:
        """Some of a layer's tokens: ``[K, T, D]`` twice."""
        key, value = (torch.cat([x[0][:, piece] for piece in pieces], 1) for x in layer)
        return key, value


def _cache(update: Any) -> Any:
    """A cache of transformers' own kind that hands keys and values to ``update``."""
    from transformers import Cache

    class Handed(Cache):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__(layers=[])

        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            found: tuple[Tensor, Tensor] = update(key_states, value_states, layer_idx)
            return found

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return 0

    return Handed()


def one_token_attention(  # noqa: D417 - the rest of what transformers passes
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    slots: _Slots | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention of one new token of every answer to the cached ones before it, and itself.

    Args:
        _module: the attention layer.
        query: ``[n, A, 1, D]``; the heads that share keys are a query each of those.
        key: ``[n, K, T, D]``.
        value: ``[n, K, T, D]``.
        attention_mask: must be ``None``: the slots say what is seen.
        scaling: factor on the scores, ``D ** -0.5`` if unset.
        slots: the answers' slots.
        sliding_window: a token sees at most so many tokens, itself included.
        softcap: scores become ``softcap * tanh(score / softcap)``.

    Returns:
        ``[n, 1, A, D]`` and no weights.
    """
    assert slots is not None, "one token without its slots"
    assert attention_mask is None, "a mask beside the slots"
    assert unused.get("s_aux") is None, "attention sinks are not supported"
    count, heads, _, size = query.shape
    kind = compute_dtype(query)
    query, key, value = (x.to(kind) for x in (query, key, value))
    mask = slots.mask(sliding_window)
    grouped = query.reshape(count, key.shape[1], -1, size)
    if softcap is None:
        out = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    else:
        factor = size**-0.5 if scaling is None else scaling
        scores = softcap * torch.tanh((grouped * factor) @ key.transpose(-1, -2) / softcap)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        out = scores.softmax(-1) @ value
    return out.reshape(count, 1, heads, -1), None
