"""Whatever stands in a recipe or its rows: words for the user, and no run that looks finished."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import builders
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier import cli
from luthier.core.errors import UserError
from luthier.core.rundir import RunDir

#: Of each kind; the whole thousand under the marker ``slow``.
QUICK, WHOLE = 25, 500
REACHED = "everything was in order, and training would begin"

GOOD: dict[str, dict[str, Any]] = {
    "data": {
        "train": "rows.jsonl", "validation": 0.2, "format": "auto", "columns": {}, "limit": 50,
        "template": None, "system": "keep", "max_length": 64, "overlong": "auto",
        "malformed": "refuse", "timeout": 5,
    },
    "training": {
        "epochs": 1, "max_steps": 2, "batch_size": 4, "token_budget": 400, "optimizer": "adamw",
        "learning_rate": 1e-3, "schedule": "cosine", "warmup": 0.1, "precision": "float32",
        "seed": 1, "device": "cpu", "threads": 1, "trackers": [], "keep": 1, "clip_norm": 1.0,
    },
    "evaluation": {"samples": 1, "rows": 4, "metrics": ["perplexity"], "resamples": 100},
    "method": {"kind": "lora", "rank": 2, "targets": "auto"},
}  # fmt: skip
ROWS = b"".join(
    json.dumps({"prompt": f"where is {n}?", "response": f"after {n - 1}"}).encode() + b"\n"
    for n in range(12)
)
PLACES = [(part, key) for part, keys in GOOD.items() for key in keys]

words = st.sampled_from(
    ["", " ", "auto", "\0", "\ud800", "${NO}", "{prompt", "{{ x", "{% for", "lora", "nan", "1e999",
     "rows.jsonl", "/", "..", "nobody/nothing:x", "<|im_end|>", "é" * 40]
)  # fmt: skip
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([10**30, -1e308, 1e-300, float("inf"), float("nan")])
    | words
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = st.sampled_from(
    ["prompt", "response", "text", "messages", "role", "content", "instruction", "input", "output",
     "label", "labels", "system", "conversations", "from", "value", "", "question", "id"]
)  # fmt: skip
turns = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": words | st.just("user"), "content": junk | st.just("hello")}
    ),
    max_size=4,
)
row = st.dictionaries(fields, junk | turns | st.just("where is my order?"), max_size=4)
good_row = st.just({"prompt": "where is it?", "response": "on its way"})
lines = (
    (row | good_row | good_row).map(lambda value: json.dumps(value).encode())
    | junk.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=20)
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = builders.tokenizer()
    builders.talking(len(tokenizer), num_hidden_layers=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any, **__: Any) -> Any:
        raise UserError(REACHED)

    monkeypatch.setattr("luthier.run.fit", fit)


def said(base: Path, recipe: Any, content: bytes, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says to a recipe and a file of rows; it must be an error in words."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "rows.jsonl").write_bytes(content)
        values = {"model": str(base), "objective": "sft", "output": str(folder / "run"), **recipe}
        data = values.get("data")
        if isinstance(data, dict) and data.get("train") == "rows.jsonl":
            values["data"] = {**data, "train": str(folder / "rows.jsonl")}
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8", errors="surrogatepass")
        status = cli.run(["train", str(path)])
        err = capsys.readouterr().err
        run = RunDir(folder / "run")
        assert status in (1, 2), err
        assert "Traceback" not in err
        assert err.startswith("error: "), err
        assert not run.finished
        assert not run.is_run
        assert not run.lock.exists()
    finally:
        shutil.rmtree(folder)
    return err


def drawn(count: int) -> settings:
    return settings(
        max_examples=int(os.environ.get("LUTHIER_EXAMPLES", str(count))),
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


def any_recipe(base: Path, place: tuple[str, str], value: Any, capsys: Any) -> None:
    part, key = place
    recipe = {**GOOD, part: {**GOOD[part], key: value}}
    said(base, recipe, ROWS, capsys)


def any_rows(base: Path, rows: list[bytes], malformed: str, capsys: Any) -> None:
    recipe = {**GOOD, "data": {**GOOD["data"], "malformed": malformed}}
    said(base, recipe, b"\n".join(rows), capsys)


recipes = given(place=st.sampled_from(PLACES), value=junk)
files = given(rows=st.lists(lines, max_size=8), malformed=st.sampled_from(["refuse", "skip"]))


@recipes
@drawn(QUICK)
def test_any_recipe(base: Path, capsys: Any, place: tuple[str, str], value: Any) -> None:
    any_recipe(base, place, value, capsys)


@files
@drawn(QUICK)
def test_any_rows(base: Path, capsys: Any, rows: list[bytes], malformed: str) -> None:
    any_rows(base, rows, malformed, capsys)


@pytest.mark.slow
@recipes
@drawn(WHOLE)
def test_any_recipe_of_many(base: Path, capsys: Any, place: tuple[str, str], value: Any) -> None:
    any_recipe(base, place, value, capsys)


@pytest.mark.slow
@files
@drawn(WHOLE)
def test_any_rows_of_many(base: Path, capsys: Any, rows: list[bytes], malformed: str) -> None:
    any_rows(base, rows, malformed, capsys)


def test_what_is_in_order_would_be_trained(base: Path, capsys: Any) -> None:
    """Else the rest would prove nothing."""
    assert REACHED in said(base, GOOD, ROWS, capsys)
