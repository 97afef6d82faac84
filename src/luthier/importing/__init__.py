"""Configurations of other trainers as recipes; what has no equal here is listed, never dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.importing import axolotl, llama_factory
from luthier.importing.sheet import Sheet

#: A key that only one of them has, and its reader.
_READERS = {
    "base_model": ("Axolotl", axolotl.read),
    "model_name_or_path": ("LLaMA-Factory", llama_factory.read),
}


def imported(path: Path) -> str:
    """A recipe as YAML, with comments on what is otherwise here and what has no equal.

    Args:
        path: an Axolotl or LLaMA-Factory YAML.

    Raises:
        RecipeError: the file is neither, or gives no recipe that is valid.
    """
    values = _parsed(path)
    for key, (name, read) in _READERS.items():
        if key in values:
            sheet = read(Sheet(values, path.parent))
            recipes.load(sheet.recipe)
            return _written(sheet, f"{path.name} of {name}")
    raise RecipeError(
        "neither Axolotl's (base_model) nor LLaMA-Factory's (model_name_or_path)",
        str(path),
        "name a file of one of them",
        code="import",
    )


def _parsed(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", str(path), code="file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise RecipeError(f"is no YAML: {said}", str(path), code="yaml") from None
    if not isinstance(values, dict):
        raise RecipeError("holds no keys", str(path), "name a file of keys and values", "import")
    return {str(key): value for key, value in values.items()}


def _written(sheet: Sheet, name: str) -> str:
    lines = [f"# From {name}."]
    if sheet.without:
        lines.append("# No equal here, and left out:")
        lines += [f"#   {line}" for line in sheet.without]
    if sheet.otherwise:
        lines.append("# Otherwise here:")
        lines += [f"#   {line}" for line in sheet.otherwise]
    if sheet.always:
        lines.append(f"# Always so here, or needed for nothing: {', '.join(sheet.always)}")
    text = yaml.safe_dump(sheet.recipe, sort_keys=False, allow_unicode=True, width=100)
    return "\n".join([*lines, text.rstrip("\n")])
