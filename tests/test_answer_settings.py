"""How answers are generated for evaluation is the recipe's to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_recipe

import luthier
from luthier.core.errors import RecipeError


def answers(folder: Path, **generation: Any) -> list[str]:
    recipe = tiny_recipe(folder)
    recipe["training"] = {**recipe["training"], "max_steps": 1, "trackers": []}
    recipe["data"] = {**recipe["data"], "validation": 0.2}
    recipe["evaluation"] = {"samples": 3, "max_new_tokens": 12, "metrics": [], **generation}
    return [sample["after"] for sample in luthier.train(recipe, quiet=True).samples]


def test_drawn_answers_differ_and_come_again(tmp_path: Path) -> None:
    plain = answers(tmp_path / "plain")
    drawn = answers(tmp_path / "drawn", temperature=2.0)
    assert drawn != plain
    assert answers(tmp_path / "again", temperature=2.0) == drawn
    assert answers(tmp_path / "likeliest", temperature=2.0, top_k=1) == plain
    assert answers(tmp_path / "nucleus", temperature=2.0, top_p=1e-6) == plain
    assert answers(tmp_path / "beams", num_beams=4, length_penalty=-2.0) != drawn


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"top_p": 0.9}, "have no effect without a temperature"),
        ({"top_k": 5}, "have no effect without a temperature"),
        ({"temperature": 1.0, "num_beams": 2}, "'temperature' draws and 'num_beams' searches"),
        ({"length_penalty": 2.0}, "no effect without beams"),
    ],
)
def test_what_has_no_effect_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        answers(tmp_path / "refused", **settings)
