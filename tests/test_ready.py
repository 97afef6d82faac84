"""Ready recipes are found by name; a file or folder of that name comes first, but for the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.core.errors import RecipeError
from luthier.ready import find_recipe, names, ready_recipe


def test_a_run_of_its_name_does_not_hide_a_ready_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("demo") == ready_recipe("demo")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "recipe.yaml").write_text("model: builtin:nano\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="is a run, not a recipe"):
        find_recipe("demo")
    assert ready_recipe("demo").name == "demo.yaml"


def test_no_recipe_names_the_nearest() -> None:
    assert "demo" in names()
    with pytest.raises(RecipeError, match="no recipe 'demos'"):
        ready_recipe("demos")
