"""What a run needs in memory, and from that the tokens of a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from luthier.core.errors import UserError

#: Larger micro-batches make nothing faster.
_MOST = {"cpu": 8192, "mps": 16384, "cuda": 65536}
#: Share of the free memory that activations may take.
_SHARE = 0.6


@dataclass(frozen=True)
class Plan:
    """An estimate, in bytes.

    Attributes:
        weights: parameters, as they are kept.
        training: gradients and optimizer moments of what is trained.
        per_token: activations kept for the backward pass, a token.
        free: memory free on the device before the model's gradients exist.
        longest: tokens of the longest example, which must fit whole.
        token_budget: tokens in one micro-batch.
    """

    weights: int
    training: int
    per_token: int
    free: int
    longest: int
    token_budget: int

    def peak(self) -> int:
        """Bytes at the fullest moment of a step."""
        return self.weights + self.training + self.per_token * self.token_budget


def make_plan(
    config: Any,
    total: int,
    trainable: int,
    *,
    longest: int,
    device: torch.device,
    budget: int | str = "auto",
    sixteen_bit: bool = False,
    recompute: bool = False,
    weights: int | None = None,
    averaged: bool = False,
) -> Plan:
    """Tokens that fit, from the architecture and the free memory.

    Args:
        config: the model's text config.
        total: parameters.
        trainable: parameters that are trained.
        longest: tokens of the longest example, which must fit whole.
        device: where the run happens.
        budget: the recipe's, or ``auto``.
        sixteen_bit: whether activations are 16-bit.
        recompute: whether gradient checkpointing keeps layer inputs only.
        weights: bytes of all parameters; float32's if unset.
        averaged: whether a moving average of what is trained is kept.

    Raises:
        UserError: not even the longest example fits.
    """
    biased = hasattr(config, "relative_attention_num_buckets")
    scored = longest if biased or device.type != "cuda" else 0
    per_token = activation_bytes(
        config, sixteen_bit=sixteen_bit, recompute=recompute, scored=scored
    )
    training = trainable * (16 if averaged else 12)
    free = free_memory(device)
    room = int((free - training) * _SHARE)
    if isinstance(budget, str):
        fits = room // max(1, per_token)
        if fits < longest:
            raise UserError(
                f"the longest example has {longest:,} tokens, and about {max(0, fits):,} fit into "
                f"the {free / 2**30:.1f} GB that are free on {device}",
                cure="training.gradient_checkpointing: true, a smaller data.max_length, or a "
                "smaller model; training.token_budget overrides this estimate",
                code="memory",
            )
        budget = max(longest, min(fits, _MOST.get(device.type, 8192)))
    bytes_held = total * 4 if weights is None else weights
    return Plan(bytes_held, training, per_token, free, longest, int(budget))


def activation_bytes(config: Any, *, sixteen_bit: bool, recompute: bool, scored: int = 0) -> int:
    """Bytes that one token leaves behind for the backward pass.

    A block keeps about eight tensors of the hidden size, keys and values, and four of
    the feed-forward width; with recomputation only its input. A decoder behind an encoder also
    keeps what cross attention makes of a source. Attention without a fused kernel (soft caps,
    T5's bias on the scores) keeps, for each head and each of the ``scored`` tokens that one sees,
    two scores and a bit of mask.
    """
    hidden = int(config.hidden_size)
    layers = int(config.num_hidden_layers)
    inner = inner_size(config)
    heads = int(config.num_attention_heads)
    kv = int(getattr(config, "num_key_value_heads", None) or heads)
    width = 2 if sixteen_bit else 4
    block = 8 * hidden + 2 * hidden * kv // heads + 4 * inner
    if getattr(config, "is_encoder_decoder", False):
        layers = max(layers, int(getattr(config, "num_decoder_layers", 0) or 0))
        block += 6 * hidden
    block *= width
    if getattr(config, "attn_logit_softcapping", None) or hasattr(
        config, "relative_attention_num_buckets"
    ):
        block += heads * scored * 10
    per_layer = hidden * 4 if recompute else block
    return layers * per_layer + (block if recompute else 0) + 8 * hidden * 4


def cached_bytes(config: Any) -> int:
    """Bytes of a token's keys and values in all layers, in float32."""
    heads = int(config.num_attention_heads)
    kv = int(getattr(config, "num_key_value_heads", None) or heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return int(config.num_hidden_layers) * 2 * kv * size * 4


def inner_size(config: Any) -> int:
    """Width of the feed-forward layers, whatever the architecture calls it."""
    for name in (
        "intermediate_size",
        "n_inner",
        "ffn_dim",
        "hidden_dim",
        "d_ff",
        "decoder_ffn_dim",
    ):
        if value := getattr(config, name, None):
            return int(value)
    return int(4 * config.hidden_size)


def free_memory(device: torch.device) -> int:
    """Bytes free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
