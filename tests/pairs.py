"""Tiny encoder-decoders of every kind that is supported, and pairs of texts for them."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import builders
import torch

from luthier.core.records import Origin, SourceTarget
from luthier.data.streams import PairCodec
from luthier.models.tokenizer import train_tokenizer

_BART: dict[str, Any] = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "forced_eos_token_id": 0,
}
_T5: dict[str, Any] = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
#: Architecture -> what it needs beside the common settings.
PACKED: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "mt5": _T5,
    "bart": _BART,
    "mbart": _BART,
    "pegasus": _BART,
    "marian": _BART,
}
#: Those whose attention or positions cannot be told of segments.
PADDED: dict[str, dict[str, Any]] = {"umt5": _T5, "m2m_100": _BART}
TARGETS = ("uno", "dos tres", "cuatro y cinco", "seis", "siete, ocho y nueve", "diez")


@cache
def _trained() -> Any:
    return train_tokenizer([*builders.SENTENCES * 3, *TARGETS], 360, ends=True)


def tokenizer() -> Any:
    """A byte-level tokenizer that ends its texts; each caller gets its own."""
    return copy.deepcopy(_trained())


def codec(max_length: int = 128, **settings: Any) -> PairCodec:
    """The codec around :func:`tokenizer`; the decoder starts with the padding token."""
    made = tokenizer()
    return PairCodec(made, start=made.pad_token_id, max_length=max_length, **settings)


def model(name: str = "t5", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A model of two layers a side, without dropout; weights large enough that all matters."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    settings = {
        "vocab_size": len(tokenizer()),
        "d_model": 32,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "decoder_start_token_id": 1,
        **{**PACKED, **PADDED}[name],
        **changes,
    }
    config = AutoConfig.for_model(name, **settings)
    for key, value in config.to_dict().items():
        if "dropout" in key and isinstance(value, float) and key not in changes:
            setattr(config, key, 0.0)
    torch.manual_seed(0)
    made = AutoModelForSeq2SeqLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2 and name not in ("t5", "mt5", "umt5"):
                parameter.mul_(4.0)
    return made.eval()


def records(count: int = 6) -> list[SourceTarget]:
    """Sources of different lengths with their targets."""
    said = builders.SENTENCES
    return [
        SourceTarget(
            Origin("made.jsonl", i + 1), said[i % len(said)], TARGETS[(i * 5) % len(TARGETS)]
        )
        for i in range(count)
    ]


def saved(folder: Path, name: str = "t5", **changes: Any) -> Path:
    """A model with its tokenizer, as a folder that a recipe can name."""
    model(name, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
