"""Which codec a model is spoken to with: turns for a decoder, two streams behind an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.core import kinds
from luthier.core.contracts import Objective
from luthier.core.contracts_data import Sourced
from luthier.core.contracts_weights import Prefixed
from luthier.core.errors import RecipeError
from luthier.core.recipe import Recipe
from luthier.data.streams import PairCodec
from luthier.data.template import TokenizerCodec
from luthier.models.encoder_decoder import EncoderDecoderModel
from luthier.models.load import Loaded


def make_codec(recipe: Recipe, loaded: Loaded) -> TokenizerCodec:
    """The codec of a recipe: its template, its bound on lengths."""
    method = kinds.build("methods", recipe.method)
    limit = loaded.context - (method.prefix if isinstance(method, Prefixed) else 0)
    if recipe.data.max_length is not None:
        limit = min(limit, recipe.data.max_length)
    if (pair := pair_codec(loaded, pair_note(recipe), limit)) is not None:
        return pair
    return TokenizerCodec(
        loaded.tokenizer,
        template=recipe.data.template,
        system=recipe.data.system,
        thinking=recipe.data.thinking,
        max_length=limit,
        causal=loaded.model.causal,
    )


def pair_note(recipe: Recipe) -> dict[str, Any]:
    """What a run keeps of how its encoder-decoder reads and writes, beside the weights."""
    languages = [getattr(recipe.objective, f"{s}_language", None) for s in ("source", "target")]
    return {"template": recipe.data.template, "languages": languages}


def pair_codec(loaded: Loaded, note: Mapping[str, Any], limit: int) -> PairCodec | None:
    """The codec of an encoder-decoder, ``None`` of any other model.

    Args:
        loaded: the model.
        note: from :func:`pair_note`, or nothing of what was not trained here.
        limit: tokens that either side may have.
    """
    if not isinstance(loaded.model, EncoderDecoderModel):
        return None
    source, target = note.get("languages") or (None, None)
    return PairCodec(
        loaded.tokenizer,
        template=note.get("template"),
        start=loaded.model.start_token,
        languages=(source, target),
        max_length=limit,
    )


def decoder_prompt(codec: TokenizerCodec) -> list[int] | None:
    """What a decoder behind an encoder is fed before it writes; ``None`` without an encoder."""
    return codec.decoder_prompt if isinstance(codec, PairCodec) else None


def check_streams(loaded: Loaded, objective: Objective, recipe: Recipe) -> None:
    """Refuses an objective that has no source for an encoder to read."""
    model = loaded.model
    if not isinstance(model, EncoderDecoderModel):
        return
    if not isinstance(objective, Sourced):
        raise RecipeError(
            f"{loaded.name} has an encoder and a decoder ({model.config.model_type}), and "
            f"'{recipe.objective.kind}' learns with a decoder alone",
            cure="set objective: seq2seq, or take a causal model",
            code="pairing",
        )
    method = kinds.build("methods", recipe.method)
    if isinstance(method, Prefixed):
        raise RecipeError(
            f"'{recipe.method.kind}' puts its tokens before what a decoder reads, and "
            f"{loaded.name} reads with an encoder",
            cure="take lora, ia3 or full",
            code="pairing",
        )
    idle = [name for name in ("system", "thinking") if getattr(recipe.data, name) != "keep"]
    if idle:
        raise RecipeError(
            f"data.{idle[0]} has no meaning for an encoder-decoder: it has no turns",
            cure="take it out",
        )
