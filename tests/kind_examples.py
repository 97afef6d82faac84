"""A kind with the least that a recipe must say of it, so that tests can walk the folders."""

from __future__ import annotations

from typing import Any

from luthier.core import kinds


def least(folder: str, kind: str) -> dict[str, Any]:
    """The kind with the examples of its required settings, which every such field gives."""
    fields = kinds.module(folder, kind).Config.model_fields
    needed = {name: field for name, field in fields.items() if field.is_required()}
    assert all(field.examples for field in needed.values()), "a required field gives an example"
    return {"kind": kind, **{name: field.examples[0] for name, field in needed.items()}}
