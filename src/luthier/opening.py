"""A finished model by name, ready to be asked, whatever it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from luthier.chat import Chat
from luthier.classify import Classifier
from luthier.core.errors import RecipeError
from luthier.embed import Embedder
from luthier.many import Tasks
from luthier.models.load import Loaded, load, locate, read_note
from luthier.score import LABELS, Scorer
from luthier.tag import Tagger

_BY_HEAD: dict[str, Callable[[Loaded], Classifier | Tagger | Embedder | Tasks]] = {
    "classification": Classifier,
    "token_classification": Tagger,
    "embedding": Embedder,
    "several": Tasks,
}


def open(name: str) -> Chat | Classifier | Tagger | Embedder | Tasks | Scorer:  # noqa: A001
    """A run, a folder, an adapter, a hub id or a builtin, as what its head makes of it.

    >>> luthier.open("runs/entities").predict(["She lives in New York."])    # doctest: +SKIP

    Raises:
        UserError: not found, or a model that can only be tuned further.
    """
    where = locate(name)
    loaded = load(name)
    if loaded.head is None:
        return Chat(loaded, read_note(Path(where.name)) if where.kind != "hub" else {})
    if loaded.head.labels in [(label,) for label in LABELS]:
        return Scorer(loaded)
    if loaded.head.kind not in _BY_HEAD:
        raise RecipeError(
            f"'{name}' fills in masked tokens: it neither talks nor labels",
            cure="tune it further, with objective: classification or token_classification",
        )
    return _BY_HEAD[loaded.head.kind](loaded)
