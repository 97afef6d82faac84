"""YAML with places: 1.2's numbers, names as keys, and nothing that no recipe needs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import RecipeError
from luthier.core.recipe_yaml import Places, parse, parse_value


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str | bytes) -> tuple[dict[str, Any], Places]:
    path = Path("r.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return parse(path)


def refused(text: str | bytes) -> str:
    with pytest.raises(RecipeError) as caught:
        read(text)
    [fault] = caught.value.faults
    return f"{fault.place}: {fault.message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E-4", 1e-4), ("2e5", 2e5), ("1.5e3", 1500.0), ("-1e+3", -1000.0),
        (".5", 0.5), ("5.", 5.0), ("1_000", 1000), ("1_0.5", 10.5), ("0", 0), ("-3", -3),
        ("+3", 3), ("0x1F", 31), ("017", "017"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"), ("e5", "e5"), ("1e", "1e"), (".", "."), ("=", "="),
        ("true", True), ("no", False), ("null", None), ("~", None), ("", None), ("'1'", "1"),
        ("1e-4x", "1e-4x"), ("builtin:nano", "builtin:nano"), ("Q: {p}", {"Q": {"p": None}}),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    found = parse_value(text, f"x={text}")
    assert found == value
    assert type(found) is type(value)


def test_infinite_numbers_are_read_and_left_to_the_recipe_to_refuse() -> None:
    assert parse_value(".inf", "") == float("inf")
    assert parse_value("1e999", "") == float("inf")
    assert parse_value(".nan", "") != parse_value(".nan", "")


def test_names_are_text_whatever_yaml_makes_of_them() -> None:
    values, places = read("on: 1\n1: 2\nnull: 3\n1e-4: {yes: 4}\n")
    assert values == {"on": 1, "1": 2, "null": 3, "1e-4": {"yes": 4}}
    assert places.of(("1e-4", "yes")) == "r.yaml:4:8"


def test_places_are_keys_and_entries() -> None:
    _, places = read("a:\n  b: 1\n  c:\n    - x\n    -  {d: 2}\ne: [1,  2]\n")
    assert places.of(("a",)) == "r.yaml:1:1"
    assert places.of(("a", "b")) == "r.yaml:2:3"
    assert places.of(("a", "c", 0)) == "r.yaml:4:7"
    assert places.of(("a", "c", 1, "d")) == "r.yaml:5:9"
    assert places.of(("e", 1)) == "r.yaml:6:9"
    assert places.of(("a", "nothing", "here")) == "r.yaml:1:1", "the nearest parent"
    assert places.of(("nothing",)) == "r.yaml"


def test_overridden_places() -> None:
    _, places = read("a:\n  b: {c: 1}\n  d: 2\n")
    over = places.overridden(("a", "b"))
    assert over.of(("a", "b")) == "command line"
    assert over.of(("a", "b", "c")) == "command line"
    assert over.of(("a", "d")) == "r.yaml:3:3"
    assert over.of(("a",)) == "r.yaml:1:1"
    fresh = places.overridden(("x", "y"))
    assert fresh.of(("x",)) == "command line", "what the command line made"
    assert places.of(("a", "b")) == "r.yaml:2:3", "nothing is changed in place"


def test_anchors_and_merge_keys() -> None:
    values, places = read(
        "base: &b {epochs: 1, seed: 2}\ntraining:\n  <<: *b\n  seed: 3\nother: *b\n"
        "list:\n  <<: [*b, {x: 1}]\n"
    )
    assert values["training"] == {"epochs": 1, "seed": 3}
    assert values["list"] == {"epochs": 1, "seed": 2, "x": 1}
    assert places.of(("training", "seed")) == "r.yaml:4:3"
    assert places.of(("training", "epochs")) == "r.yaml:1:11", "where it is written"
    assert places.of(("list", "x")) == "r.yaml:7:13"
    assert places.faults == ()


def test_every_doubled_key_is_named_and_reading_goes_on() -> None:
    _, places = read("a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n")
    assert [f"{f.place}: {f.message}" for f in places.faults] == [
        "r.yaml:2:11: b.c: stands twice",
        "r.yaml:3:1: a: stands twice",
        "r.yaml:4:1: a: stands twice",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "r.yaml: the recipe is empty"),
        ("# only a comment\n", "r.yaml: the recipe is empty"),
        ("---\n", "r.yaml: the recipe is empty"),
        ("- a\n", "r.yaml: a recipe is a mapping of names to values, this is a list"),
        ("a\n", "r.yaml: a recipe is a mapping of names to values, this is a single value"),
        ("a:\n\tb: 1\n", "r.yaml:2:1: not YAML: a tab cannot indent YAML, use spaces"),
        ("a: b: c\n", "r.yaml:1:5: not YAML: mapping values are not allowed here"),
        ("a: [1\n", "r.yaml:2:1: not YAML: expected ',' or ']', but got '<stream end>', while "
         "parsing a flow sequence"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2:1: not YAML: a recipe is one document, here '---' begins "
         "another"),
        ("a: !!python/object/apply:os.system [ls]\n", "r.yaml:1:4: not YAML: tags such as !!python "
         "are not allowed"),
        ("a: *b\n", "r.yaml:1:4: not YAML: found undefined alias 'b'"),
        ("[a, b]: 1\n", "r.yaml:1:1: a name must be a plain word"),
        ("? {a: 1}\n: 1\n", "r.yaml:1:3: a name must be a plain word"),
        ("x: 1\na: \x00\n", "r.yaml:2: not YAML: a control character (U+0000)"),
        (b"a: 1\nb: \xff\n", "r.yaml:2: is no text in UTF-8"),
        ("a: 1".encode("utf-16"), "r.yaml:1: is no text in UTF-8"),
        ("a: " + "9" * 5000, "r.yaml: not YAML: a number too long to read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(text: str | bytes, words: str) -> None:
    assert refused(text).startswith(words)


def test_a_variable_in_a_flow_mapping_wants_quotes() -> None:
    with pytest.raises(RecipeError) as caught:
        read("data: {train: ${PLACE}/x}\n")
    assert caught.value.faults[0].cure == 'quote the variable: "${NAME}/file"'


def test_a_byte_order_mark_and_windows_lines() -> None:
    values, places = read(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 2\r\n")
    assert values == {"a": 1, "b": {"c": 2}}
    assert places.of(("b", "c")) == "r.yaml:3:3"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"b{i}: &b{i} [{','.join(['*' + (f'b{i - 1}' if i else 'a')] * 10)}]\n"
            for i in range(9)
        ),
        "a0: &a0 {k: 1}\n"
        + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)),
        "a: &a {b: *a}\n",
        "a: &a [*a]\n",
        "a: " + "[" * 60 + "]" * 60,
        "[" * 100_000,
        "a: " + "{b: " * 3000 + "}" * 3000,
        "- " * 3000,
        "".join(" " * n + f"a{n}:\n" for n in range(1000)),
    ],
    ids=["laughs", "merges", "loop", "list-loop", "deep", "open", "flow", "dashes", "block"],
)
def test_bombs_are_refused_in_no_time(text: str) -> None:
    start = time.process_time()
    assert "than any recipe" in refused(text)
    assert time.process_time() - start < 10


def test_what_is_no_file(tmp_path: Path) -> None:
    Path("folder").mkdir()
    for path, words in (
        (Path("missing.yaml"), "no recipe 'missing.yaml'"),
        (Path("folder"), "is a folder, not a recipe"),
        (Path("a\0b"), "cannot be read"),
        (Path("x" * 5000), "cannot be read"),
    ):
        with pytest.raises(RecipeError, match=words):
            parse(path)
    Path("folder/recipe.yaml").touch()
    with pytest.raises(RecipeError) as caught:
        parse(Path("folder"))
    assert "folder/recipe.yaml" in caught.value.faults[0].cure


def test_a_file_that_may_not_be_read() -> None:
    path = Path("r.yaml")
    path.write_text("a: 1")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser reads everything
        assert parse(path)[0] == {"a": 1}
    else:
        with pytest.raises(RecipeError, match="Permission denied"):
            parse(path)


def test_a_file_larger_than_any_recipe() -> None:
    assert "larger than any recipe" in refused("a: " + "x" * 5_000_000)


def test_the_file_goes_by_the_name_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "r.yaml").write_text("a: 1")
    _, places = parse(Path("sub/r.yaml"))
    assert places.of(("a",)) == "sub/r.yaml:1:1"
