"""Whatever is written into a recipe, it is understood or refused in words, never a traceback."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.core import kinds
from luthier.core.errors import UserError
from luthier.core.recipe import Recipe, load, stages

#: The whole thousand with ``LUTHIER_EXAMPLES=1000``; the same ones each time.
QUICK = settings(
    max_examples=int(os.environ.get("LUTHIER_EXAMPLES", "200")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

KEYS = sorted(
    {
        "kind", "rank", "train_on", "targets", "", "training.epochs", "zzz", "stages",
        *Recipe.model_fields,
        *(
            name
            for field in Recipe.model_fields.values()
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields")
            for name in field.annotation.model_fields
        ),
    }
)  # fmt: skip
NAMES = [kind for folder in kinds.FOLDERS for kind in kinds.names(folder)]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(),
    st.just(10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(
        [*NAMES, "auto", "builtin:nano", "os.path", "a..b", ".", "${NO_SUCH}", "$${X}"]
    ),
    st.sampled_from(["<3 rows in memory>", "1e-4", "inf", "true", "0.2", "\0", "\ud800", " "]),
    st.text(max_size=12),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4),
    ),
    max_leaves=12,
)
strange = st.one_of(
    st.sampled_from([b"x", object(), {1, 2}, (), ({},), Path("x"), 1j, Recipe, print]),
    st.dictionaries(st.integers() | st.none() | st.sampled_from(KEYS), scalars, max_size=3),
)


def parts(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Recipes whose keys are mostly real and whose values mostly are not."""
    part = st.one_of(leaf, st.dictionaries(st.sampled_from(KEYS), leaf, max_size=4))
    stage = st.dictionaries(st.sampled_from(list(Recipe.model_fields)), part, max_size=3)
    good: dict[str, Any] = {"model": "m", "data": {"train": "x"}}
    whole = st.dictionaries(
        st.sampled_from([*Recipe.model_fields, "zzz"]),
        st.one_of(part, st.lists(stage | leaf, max_size=2)),
        max_size=5,
    )
    return st.one_of(whole, whole.map(lambda drawn: {**good, **drawn}))


def understood(source: Any, overrides: tuple[str, ...] = ()) -> Recipe | None:
    """The recipe, or ``None`` where it was refused as it should be."""
    try:
        return load(source, overrides)
    except UserError as refusal:
        faults = refusal.faults
    assert faults
    for fault in faults:
        assert fault.message.strip()
        assert "validation error" not in fault.message
        assert "pydantic" not in str(fault).lower()
    return None


@QUICK
@given(parts(values))
def test_any_mapping_is_understood_or_refused(drawn: dict[str, Any]) -> None:
    recipe = understood(drawn)
    if recipe is not None:
        again = load(yaml.safe_load(yaml.safe_dump(load(recipe.resolved()).resolved())))
        assert again.resolved() == recipe.resolved()
        stages(recipe)


@QUICK
@given(parts(values | strange))
def test_any_python_value_is_understood_or_refused(drawn: dict[str, Any]) -> None:
    understood(drawn)


@QUICK
@given(parts(values))
def test_any_yaml_file_is_understood_or_refused(drawn: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(yaml.safe_dump(drawn), encoding="utf-8", errors="surrogatepass")
        understood(path)


@QUICK
@given(st.binary(max_size=40) | st.text(alphabet="ab:-[]{}&*!|>'\"\n\t #%@`,?<=~1.e", max_size=40))
def test_any_bytes_are_understood_or_refused(drawn: bytes | str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_bytes(drawn if isinstance(drawn, bytes) else drawn.encode())
        understood(path)


words = st.one_of(
    st.text(max_size=20),
    st.builds(
        lambda path, value: f"{'.'.join(path)}={value}",
        st.lists(st.sampled_from([*KEYS, "0", "1", "-1"]), min_size=1, max_size=4),
        st.sampled_from(["1", "1e-4", "auto", "{a: 1}", "[1, 2]", "", "[", "*a", "&a [*a]", "'x"])
        | st.text(max_size=8),
    ),
)
BASE = {
    "model": "m",
    "data": {"train": "x"},
    "objective": "sft",
    "method": {"kind": "lora", "rank": 3},
    "evaluation": {"metrics": ["rouge"]},
    "stages": [{"training": {"epochs": 1}}, {"objective": "sft"}],
}


@QUICK
@given(st.lists(words, max_size=3))
def test_any_words_are_understood_or_refused(drawn: list[str]) -> None:
    understood(BASE, tuple(drawn))
