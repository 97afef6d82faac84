"""Writes docs/recipe.md from the recipe model, so that no default is documented twice."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from luthier.core import kinds
from luthier.core.generators import GeneratorSpec
from luthier.core.recipe import (
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    Recipe,
    RetainSpec,
    TrainingSpec,
)
from luthier.core.recipe_parts import SubsetSpec
from luthier.core.recipe_sources import SourceSpec

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipe.md"

HEAD = """# The recipe, key by key

Written by `tools/write_recipe_page.py` from the code; edit it there. `luthier recipe schema`
prints the same as JSON Schema for editors, `luthier recipe check FILE` validates a file, and
`luthier inspect FILE` shows what it would do to your data. Any key can be overridden on the
command line: `luthier train recipe.yaml training.epochs=5`. `${NAME}` in a value is an
environment variable.
"""


def main() -> int:
    """Writes the page, or with ``--check`` compares it; status 1 where it is stale."""
    text = page()
    if "--check" in sys.argv:
        return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD, _section("Top level", "", Recipe)]
    for name, model in (
        ("model", ModelSpec),
        ("data", DataSpec),
        ("data.mixture", SourceSpec),
        ("data.subset", SubsetSpec),
        ("training", TrainingSpec),
        ("evaluation", EvaluationSpec),
        ("retain", RetainSpec),
    ):
        parts.append(_section(f"`{name}`", (model.__doc__ or "").split("\n")[0], model))
    for folder, title in (
        ("objectives", "Objectives"),
        ("methods", "Methods"),
        ("metrics", "Metrics"),
        ("rewards", "Rewards"),
        ("data/formats", "Formats"),
        ("data/cleaners", "Cleaners"),
        ("data/augmenters", "Augmenters"),
    ):
        parts.append(_kinds(folder, title))
    parts.append(
        _section("A `generator`", (GeneratorSpec.__doc__ or "").split("\n")[0], GeneratorSpec)
    )
    return "\n".join(parts).replace("``", "`")


def _kinds(folder: str, title: str) -> str:
    lines = [f"## {title}", ""]
    for kind in kinds.names(folder):
        lines += [f"### `{kind}`", "", kinds.summary(folder, kind), ""]
        table = _table(kinds.module(folder, kind).Config, skip=("kind",))
        lines += [*table, ""] if table else []
    return "\n".join(lines)


def _section(title: str, intro: str, model: Any) -> str:
    return "\n".join([f"## {title}", "", *([intro, ""] if intro else []), *_table(model), ""])


def _table(model: Any, skip: tuple[str, ...] = ()) -> list[str]:
    documented = _descriptions(model)
    rows = [
        f"| `{name}` | {_default(field)} | {documented.get(name, '')} |"
        for name, field in model.model_fields.items()
        if name not in skip
    ]
    return ["| key | default | meaning |", "|---|---|---|", *rows] if rows else []


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if hasattr(value, "model_dump"):
        return "see below"
    return f"`{value}`".replace("\n", "\\n")


def _descriptions(model: Any) -> dict[str, str]:
    """Docstrings below the fields, as the source has them."""
    found = {}
    for name, field in model.model_fields.items():
        if field.description:
            found[name] = " ".join(inspect.cleandoc(field.description).split())
    return {name: text.replace("|", "\\|") for name, text in found.items()}


if __name__ == "__main__":
    sys.exit(main())
