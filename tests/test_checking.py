"""A recipe's data checked in its own tokens: template, tokenizer, split, classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import TINY, sums

from luthier import cli
from luthier.checking import check_recipe
from luthier.core import recipe as recipes
from luthier.core.records import Origin, causal_example
from luthier.data.check import Report
from luthier.data.checks._base import Tokens
from luthier.data.checks.tokens import judged

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|end|>{% endfor %}"
GENERATE = "{% if add_generation_prompt %}<assistant>{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
REWRITES = (
    "{% for m in messages %}<{{ m['role'] }}>"
    "{% if loop.last or m['role'] != 'assistant' %}{{ m['content'] }}{% endif %}<|end|>"
    "{% endfor %}" + GENERATE
)


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": r, "content": f"the {r} says {i}"} for i, r in enumerate(roles)]}


LONG_PROMPT = {"prompt": "word " * 60, "response": "Yes it is."}
LONG_ANSWER = {"prompt": "Say it.", "response": "word " * 60}

#: Code -> (rows after four good ones, changes of the data part).
RECIPES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "D012": ([], {"validation": 0.5}),
    "D030": ([LONG_PROMPT], {"max_length": 40, "overlong": "right"}),
    "D031": ([], {}),
    "D032": ([], {}),
    "D033": (
        [turns("user", "assistant")],
        {"template": "{{ bos_token }}{{ bos_token }}" + CHAT + GENERATE},
    ),
    "D034": ([turns("system", "user", "assistant")], {"template": NO_SYSTEM + CHAT + GENERATE}),
    "D035": ([turns("user", "assistant", "user", "assistant")], {"template": REWRITES}),
    "D036": ([], {}),
    "D037": ([LONG_PROMPT], {"max_length": 40, "overlong": "refuse"}),
    "D038": (
        [turns("user", "assistant", "assistant")],
        {
            "template": "{% if messages|length > 2 %}{{ raise_exception('two') }}{% endif %}"
            + CHAT
            + GENERATE
        },
    ),
    "D039": ([LONG_ANSWER], {"max_length": 40, "overlong": "right"}),
}


def recipe_of(folder: Path, rows: list[dict[str, Any]], **data: Any) -> recipes.Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = {"model": TINY, "data": {"train": str(path), "validation": 0, **data}}
    return recipes.validate(plain)


def totals(report: Report) -> dict[str, int]:
    return dict(report.findings.totals)


def place(report: Report, code: str) -> str:
    (group,) = [g for g, _ in report.findings.groups() if g[0].code == code]
    return Path(group[0].place).name


@pytest.mark.parametrize("code", ["D030", "D034", "D035", "D037", "D038", "D039"])
def test_what_the_template_and_the_context_show(code: str, tmp_path: Path) -> None:
    rows, data = RECIPES[code]
    good = [turns("user", "assistant")] if "messages" in rows[0] else sums()[:4]
    (report,) = check_recipe(recipe_of(tmp_path, [*good, *rows], **data))
    cut = {"D039"} if code == "D030" else set()
    assert set(totals(report)) - cut == {code}
    assert totals(report)[code] == 1
    assert place(report, code) == (
        "rows.jsonl" if code == "D039" else f"rows.jsonl:{len(good) + 1}"
    )


def test_a_doubled_beginning_is_found_in_every_row(tmp_path: Path) -> None:
    rows, data = RECIPES["D033"]
    (report,) = check_recipe(
        recipe_of(tmp_path, [*rows, turns("user", "assistant", "user", "assistant")], **data)
    )
    assert totals(report) == {"D033": 2}


def test_a_split_that_leaves_nothing(tmp_path: Path) -> None:
    (report,) = check_recipe(recipe_of(tmp_path, [sums()[0]] * 3, validation=0.5))
    assert totals(report) == {"D012": 1, "D050": 2}


def test_a_clean_recipe_gives_nothing(tmp_path: Path) -> None:
    (report,) = check_recipe(recipe_of(tmp_path, sums(), validation=0.2))
    assert totals(report) == {}
    assert report.rows == 64


class Codec:
    """As far as a finished example needs one."""

    max_length = 64
    frame: frozenset[int] = frozenset()

    class tokenizer:  # noqa: N801
        bos_token_id = None
        pad_token_id = 0

    def __init__(self, *ends: int) -> None:
        self.end_tokens = list(ends)


def test_end_of_turn_and_embedding_are_looked_at_in_the_tokens() -> None:
    """The engine masks by place, so only a faulty objective or codec could bring these about."""
    origin = Origin("rows.jsonl", 7)
    good = causal_example([([5, 6], False), ([7, 8, 2], True)], origin)
    unlearned = causal_example([([5, 6], False), ([7, 8], True), ([2], False)], origin)
    padded = causal_example([([5, 6], False), ([7, 8], True), ([0], False)], origin)
    tokens = Tokens(None, Codec(2), 9, "refuse")  # type: ignore[arg-type]
    assert not list(judged(good, tokens))
    assert [f.code for f in judged(good, replace(tokens, embeddings=8))] == ["D036"]
    assert [f.code for f in judged(unlearned, tokens)] == ["D031"]
    (masked,) = judged(padded, replace(tokens, codec=Codec(0)))
    assert (masked.code, masked.place) == ("D032", "rows.jsonl:7")


def test_validation_is_compared_with_training(tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in [{"prompt": "New?", "response": "Yes, new."}, sums()[3]]
        )
    )
    (report,) = check_recipe(recipe_of(tmp_path, sums(), validation=str(held)))
    assert totals(report) == {"D040": 1}
    assert place(report, "D040") == "held.jsonl:2"


def test_near_duplicates_on_both_sides_of_a_share_are_a_leak(tmp_path: Path) -> None:
    """The split keeps equal rows together, not nearly equal ones."""
    text = "a long answer of many words that says one thing after the other " * 2
    rows = [
        {
            "prompt": f"Tell me {n}",
            "response": text + "and this and that and more of it " + "so " * 3,
        }
        for n in range(40)
    ]
    (report,) = check_recipe(recipe_of(tmp_path, rows, validation=0.3))
    assert set(totals(report)) >= {"D041", "D051"}


def test_columns_and_format_of_the_recipe_are_used(tmp_path: Path) -> None:
    rows = [{"ask": row["prompt"], "say": row["response"]} for row in sums()]
    (report,) = check_recipe(
        recipe_of(tmp_path, rows, columns={"prompt": "ask", "response": "say"})
    )
    assert totals(report) == {}
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"ask": "x", "say": ""}) + "\n")
    (report,) = check_recipe(
        recipe_of(tmp_path, rows, columns={"prompt": "ask", "response": "say"}), [str(other)]
    )
    assert totals(report) == {"D003": 1}


def classified(folder: Path, labels: list[str], **objective: Any) -> recipes.Recipe:
    path = folder / "rows.csv"
    rows = [f"a text of number {n},{label}\n" for n, label in enumerate(labels)]
    path.write_text("text,label\n" + "".join(rows))
    return recipes.validate(
        {
            "model": "builtin:nano",
            "objective": {"kind": "classification", **objective},
            "data": {"train": str(path), "validation": 0},
        }
    )


def test_a_label_outside_the_recipe_s_classes_is_told_once(tmp_path: Path) -> None:
    recipe = classified(tmp_path, ["wet", "dry", "wett", "dry"], classes=["dry", "wet"])
    (report,) = check_recipe(recipe)
    assert totals(report) == {"D020": 1}
    assert place(report, "D020") == "rows.csv:4"


def test_labels_that_nothing_can_be_learned_from_are_a_finding(tmp_path: Path) -> None:
    (report,) = check_recipe(classified(tmp_path, ["wet", "wet"]))
    assert totals(report) == {"D038": 1}


def test_numbers_are_no_classes(tmp_path: Path) -> None:
    labels = [f"{n / 7:.3f}" for n in range(30)]
    (report,) = check_recipe(classified(tmp_path, labels, problem_type="regression"))
    assert totals(report) == {}


def test_how_far_the_pass_is(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    rows = [{"prompt": f"What is {n}?", "response": f"It is {n}."} for n in range(1200)]
    check_recipe(
        recipe_of(tmp_path, rows), progress=lambda share, doing: told.append((share, doing))
    )
    assert [doing for _, doing in told[:2]] == ["499 rows", "999 rows"]
    assert all(0 <= share <= 1 for share, _ in told)
    assert told[-1] == (1.0, "comparing")


def test_the_command_takes_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe_of(tmp_path, [*sums(), {"prompt": "x", "response": None}])
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({"model": TINY, "data": {"train": str(tmp_path / "rows.jsonl")}})
    )
    assert cli.run(["data", "check", "--recipe", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"ERROR D006 {tmp_path}/rows.jsonl:65  " in out
    assert "1 error, 0 warnings in 65 rows" in out
