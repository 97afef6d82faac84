"""Tokens that a pretrained model does not know yet: ``model.new_tokens``.

Each row of the embeddings, and of an output head of its own, starts as the mean of the rows of the
pieces that spelt the token until now; the mean of all rows (Hewitt 2021, "Initializing new word
embeddings for pretrained language models") where nothing spelt it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luthier.core.errors import RecipeError

#: Attribute of a model: ids of its new tokens, whose rows a method must train.
ATTRIBUTE = "new_token_ids"


def read(given: str | Sequence[str]) -> list[str]:
    """The tokens of a recipe: a list, or a file with one on each line.

    Raises:
        RecipeError: no such file, or a token that is none.
    """
    tokens = list(given) if not isinstance(given, str) else _lines(Path(given))
    place = "model.new_tokens"
    if bad := [token for token in tokens if not token.strip()]:
        raise RecipeError(f"{place}: {bad[0]!r} is no token")
    if doubled := sorted({token for token in tokens if tokens.count(token) > 1}):
        raise RecipeError(f"{place} names '{doubled[0]}' twice")
    return tokens


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise RecipeError(
            f"model.new_tokens: '{path}' cannot be read: {error}",
            cure="name the tokens themselves, [<tool>, </tool>], or a file with one on each line",
        ) from None


def add(module: nn.Module, tokenizer: Any, tokens: Sequence[str]) -> list[str]:
    """Adds tokens to a tokenizer and their rows to a model; returns what to tell the user.

    They are ordinary tokens: text that spells one becomes it, and answers show it.

    Args:
        module: a transformers model, on any device, or a head of ours on one.
        tokenizer: its tokenizer.
        tokens: what :func:`read` gave.
    """
    from transformers import AddedToken

    known = tokenizer.get_vocab()
    fresh = [token for token in tokens if token not in known]
    said = []
    if old := [token for token in tokens if token in known]:
        said.append(f"the tokenizer knows {', '.join(old)} already: {_are(old)} not new")
    if not fresh:
        return said
    pieces = [tokenizer(token, add_special_tokens=False).input_ids for token in fresh]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in fresh])
    ids = tokenizer.convert_tokens_to_ids(fresh)
    model: Any = getattr(module, "trunk", module)
    _make_room(model, max(ids) + 1)
    for rows in _tables(model):
        _start(rows, ids, pieces)
    setattr(model, ATTRIBUTE, tuple(ids))
    lengths = ", ".join(
        f"{token} (was {len(spelt)})" for token, spelt in list(zip(fresh, pieces, strict=True))[:5]
    )
    more = f" and {len(fresh) - 5:,} more" if len(fresh) > 5 else ""
    said.append(f"{len(fresh):,} new {_tokens(fresh)}, from the mean of their pieces: {lengths}")
    said[-1] += more
    return said


def _are(tokens: Sequence[str]) -> str:
    return "it is" if len(tokens) == 1 else "they are"


def _tokens(tokens: Sequence[str]) -> str:
    return "token" if len(tokens) == 1 else "tokens"


def _make_room(model: Any, count: int) -> None:
    """Rows for so many tokens; a vocabulary that was padded keeps its size."""
    if model.get_input_embeddings().weight.shape[0] < count:
        meta = model.get_input_embeddings().weight.device
        with torch.device(meta):
            model.resize_token_embeddings(count, mean_resizing=False)


def _tables(model: Any) -> list[Tensor]:
    """What has a row a token: the embeddings, and a head and its bias where they are its own."""
    embeddings = model.get_input_embeddings().weight
    head = getattr(model, "get_output_embeddings", lambda: None)()
    tables = [embeddings]
    if head is not None:
        tables += [] if head.weight is embeddings else [head.weight]
        tables += [] if getattr(head, "bias", None) is None else [head.bias]
    return tables


@torch.no_grad()
def _start(rows: Tensor, ids: Sequence[int], pieces: Sequence[Sequence[int]]) -> None:
    if rows.is_meta:
        return
    everything = rows[: min(ids)].float().mean(0)
    for token, spelt in zip(ids, pieces, strict=True):
        mean = rows[list(spelt)].float().mean(0) if spelt else everything
        rows[token] = mean.to(rows.dtype)
