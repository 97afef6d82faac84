"""``data show``: a row as the model reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import classifiers
import numpy as np
import pytest
from tiny_runs import sums, tiny_recipe

from luthier import cli
from luthier.core import recipe as recipes
from luthier.core.errors import DataError, RecipeError
from luthier.core.records import Example, Origin, Segment
from luthier.show import _branches, page, show


def recipe_of(folder: Path, rows: list[Any], **changes: Any) -> recipes.Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" if row else "\n" for row in rows))
    data = {"train": str(path), **changes.pop("data", {})}
    return recipes.load(tiny_recipe(folder / "run", data=data, **changes))


def text_of(tokens: Any) -> str:
    return "".join(token.text for token in tokens)


def test_a_row_is_found_by_its_physical_line(tiny_run: Path, tmp_path: Path) -> None:
    rows: list[Any] = [sums()[0], None, *sums()[1:]]
    recipe = recipe_of(tmp_path, rows, model=str(tiny_run))
    for row in ("3", "rows.jsonl:3", f"{tmp_path / 'rows.jsonl'}:3"):
        found = show(recipe, row)
        assert found.origin.endswith("rows.jsonl:3")
        assert [turn["content"] for turn in found.fields["turns"]] == [*sums()[1].values()]
    assert show(recipe).origin.endswith(":1")
    with pytest.raises(DataError, match="no row begins at line 2; the nearest is line 1"):
        show(recipe, "2")
    with pytest.raises(RecipeError, match="is no line"):
        show(recipe, "rows.jsonl")


def test_what_is_learned_is_the_answer_and_its_end(tiny_run: Path, tmp_path: Path) -> None:
    found = show(recipe_of(tmp_path, sums(), model=str(tiny_run)), "5")
    [[branch]] = found.pieces
    learned = [token for token in branch.tokens if token.learned]
    assert text_of(learned[:-1]) == sums()[4]["response"]
    assert learned[-1].special
    assert not learned[0].special
    assert branch.learned == len(learned)
    assert text_of(branch.tokens).count(sums()[4]["prompt"]) == 1
    assert found.side in ("train", "validation")


def test_letters_that_tokens_share_are_shown_whole(tiny_run: Path, tmp_path: Path) -> None:
    said = "Grüße 你好 🙂, wieder 🙂"
    rows = [{"prompt": "hello", "response": said}, *sums()]
    [[branch]] = show(recipe_of(tmp_path, rows, model=str(tiny_run)), "1").pieces
    learned = [token for token in branch.tokens if token.learned and not token.special]
    assert text_of(learned) == said
    assert any(len(token.ids) > 1 for token in learned)
    assert sum(len(token.ids) for token in branch.tokens) == branch.size


def test_a_refused_row_is_shown_as_refused(tiny_run: Path, tmp_path: Path) -> None:
    rows = [*sums(), {"prompt": "a", "response": ""}]
    with pytest.raises(DataError, match="response in 'response' is empty"):
        show(recipe_of(tmp_path, rows, model=str(tiny_run)), str(len(rows)))


def test_what_is_cut_is_said(tiny_run: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "really " * 200, "response": "yes"}, *sums()]
    data = {"overlong": "left"}
    found = show(recipe_of(tmp_path, rows, model=str(tiny_run), data=data), "1")
    assert "tokens are cut away, 0 of them learned (data.overlong: left)" in found.notices[0]


def test_a_tree_keeps_its_branches(tiny_run: Path, tmp_path: Path) -> None:
    from luthier.preview import preview

    seen = preview(recipe_of(tmp_path, sums(), model=str(tiny_run)))
    first, second, third = (np.array(seen.codec.tokenizer(w).input_ids) for w in ("ab", "cd", "ef"))
    tree = (Segment(first), Segment(second, parent=0), Segment(third, parent=0))
    last = len(first) - 1
    table = {
        "position": np.array([last, last]),
        "token": np.array([second[0], third[0]]),
        "weight": np.ones(2, dtype=np.float32),
    }
    made = list(_branches(Example(tree, {"lm": table}, Origin("made", 1)), seen))
    assert [one.parent for one in made] == [None, 0, 0]
    assert [one.learned for one in made] == [0, 1, 1]


def test_command_and_page(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "<b>bold</b> & more", "response": "two\nlines"}, *sums()]
    path = tmp_path / "recipe.json"
    made = recipe_of(tmp_path, rows, model=str(tiny_run))
    path.write_text(json.dumps(made.resolved()))
    assert cli.run(["data", "show", str(path), "--row", "1"]) == 0
    out = capsys.readouterr().out
    assert "Conversation" in out
    assert "[[two⏎" in out
    assert cli.run(["data", "show", str(path), "--row", "1", "--ids"]) == 0
    assert "(" in capsys.readouterr().out
    file = tmp_path / "row.html"
    assert cli.run(["data", "show", str(path), "--row", "1", "--html", str(file)]) == 0
    html = file.read_text(encoding="utf-8")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in html
    assert "<b>bold" not in html
    assert "http" not in html.replace("http-equiv", ""), "something is fetched from elsewhere"
    assert html == page(show(made, "1"))


def test_a_classifier_shows_its_label(tmp_path: Path) -> None:
    rows = [
        {"text": f"it was {word}, {n}", "label": word} for n in range(3) for word in ("good", "bad")
    ]
    model = str(classifiers.saved(tmp_path / "base", "bert"))
    found = show(recipe_of(tmp_path, rows, model=model, objective="classification"), "2")
    assert found.label == "bad"
    assert not any(token.learned for piece in found.pieces for b in piece for token in b.tokens)


def test_a_stage_that_is_not_there_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    stages = [{"training": {"max_steps": 2}}, {"training": {"max_steps": 3}}]
    made = recipe_of(tmp_path, sums(), model=str(tiny_run), stages=stages)
    assert show(made, "1", stage=2).pieces == show(made, "1", stage=1).pieces
    with pytest.raises(RecipeError, match="no stage 3: the recipe has 2"):
        show(made, "1", stage=3)
