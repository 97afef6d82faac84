"""Ready recipes by name: those that come with Luthier."""

from __future__ import annotations

from pathlib import Path

from luthier.core.errors import RecipeError, nearest

#: In the wheel beside the code, in the repository at its root.
_PLACES = (
    Path(__file__).resolve().parent / "recipes",
    Path(__file__).resolve().parents[2] / "recipes",
)


def folder() -> Path | None:
    """Where the ready recipes lie."""
    return next((place for place in _PLACES if place.is_dir()), None)


def names() -> list[str]:
    """The ready recipes, in order of name."""
    place = folder()
    return sorted(path.stem for path in place.glob("*.yaml")) if place else []


def summary(name: str) -> str:
    """The comment that a ready recipe begins with, its first sentence."""
    place = folder()
    assert place is not None
    lines = (place / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# ").strip())
    return " ".join(comment).split(". ")[0].removesuffix(".")


def find_recipe(name: str) -> Path:
    """A recipe's file: a path, or the name of a ready one where no such file exists.

    Raises:
        RecipeError: neither; or a run's folder, which is no recipe.
    """
    path = Path(name).expanduser()
    if (path / "recipe.yaml").is_file():
        raise RecipeError(
            f"'{name}' is a run, not a recipe",
            cure=f"its recipe is {path / 'recipe.yaml'}; to continue it: "
            f"luthier train --resume {name}",
        )
    return path if path.exists() else ready_recipe(name)


def ready_recipe(name: str) -> Path:
    """A ready recipe's file, whatever else goes by its name.

    Raises:
        RecipeError: there is none.
    """
    place = folder()
    if place is not None and name.removesuffix(".yaml") in names():
        return place / f"{name.removesuffix('.yaml')}.yaml"
    raise RecipeError(
        f"no recipe '{name}': no such file, and no ready recipe of that name",
        cure=f"{nearest(name, names())} (`luthier list recipes`)",
        code="no-recipe",
    )
