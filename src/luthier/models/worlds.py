"""Every kind of head beside the language model's, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.core.contracts import Head
from luthier.models import embedder, several
from luthier.models.headed import World

#: ``Head.kind`` -> how models with such a head are made.
WORLDS: Mapping[str, World] = {
    **{kind: world for kind, world in several.SINGLE.items() if kind != "lm"},
    embedder.HEAD: embedder.WORLD,
    several.HEAD: several.WORLD,
}


def kept(name: str, config: Any) -> Head | None:
    """The head that a folder or a hub model comes with; ``None`` of a language model."""
    found = (world.kept(name, config) for world in WORLDS.values())
    return next((head for head in found if head is not None), None)
