"""A kind is a file in a folder, or a user's own module by import path; nothing is listed twice."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import builders
import pytest

import luthier
from luthier.core import kinds
from luthier.core.contracts import KindConfig
from luthier.core.errors import RecipeError
from luthier.core.recipe import load

ALL = [(folder, kind) for folder in kinds.FOLDERS for kind in kinds.names(folder)]

#: The least that each folder's class has to say for a recipe to be read.
BODIES = {
    "objectives": "    records = (Conversation,)\n    metrics = ()\n    overlong = 'refuse'\n"
    "    needs_reference = False\n    heads = ()\n",
    "methods": "    default_rate = 1e-4\n    def supports(self, objective): return None\n",
    "metrics": "    needs = frozenset()\n    names = ('mine',)\n    higher_is_better = True\n",
    "rewards": "    def score(self, prompts, answers): return [1.0 for _ in answers]\n",
    "data/formats": "    records = (Conversation,)\n"
    "    def recognise(self, fields): return None\n    def read(self, row): ...\n",
    "data/cleaners": "    def clean(self, records): ...\n",
    "combine": "    needs_base = False\n    def check(self, shares): ...\n",
    "data/augmenters": "    near = True\n    generator = None\n"
    "    def wanted(self, records): return 0\n"
    "    def augment(self, records, count, seed, writer): ...\n",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes modules that a user might write, importable as ``mine.NAME``."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def write(name: str, text: str) -> str:
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.py").write_text(text)
        return f"mine.{name}"

    yield write
    for name in [n for n in sys.modules if n == "mine" or n.startswith("mine.")]:
        del sys.modules[name]


def whole(folder: str) -> str:
    return (
        '"""Mine: a kind of my own.\n\nMore of it."""\n'
        "from luthier.core.contracts import KindConfig\n"
        "from luthier.core.records import Conversation\n"
        "class Config(KindConfig):\n"
        "    kind: str = 'mine'\n"
        "    strength: float = 1.0\n"
        f"class {kinds.FOLDERS[folder]}:\n"
        "    def __init__(self, config): self.config = config\n" + BODIES[folder]
    )


@pytest.mark.parametrize(("folder", "kind"), ALL)
def test_every_file_of_a_folder_is_a_kind(folder: str, kind: str) -> None:
    needed = builders.settings(folder, kind)
    config = kinds.config(folder, needed)
    assert config.kind == kind
    assert type(config).model_fields["kind"].default == kind, "Config's kind is the file's name"
    if len(needed) == 1:
        assert kinds.config(folder, kind) == config
    assert kinds.config(folder, config) == config
    assert type(kinds.build(folder, config)).__name__ == kinds.FOLDERS[folder]
    assert kinds.summary(folder, kind)


def test_the_folders_are_the_packages_own() -> None:
    root = Path(luthier.__file__).parent
    for folder in kinds.FOLDERS:
        assert (root / folder).is_dir()
        files = {path.stem for path in (root / folder).glob("[!_]*.py")}
        assert set(kinds.names(folder)) == files


@pytest.mark.parametrize("folder", kinds.FOLDERS)
def test_a_users_own_module_by_import_path(folder: str, own: Any) -> None:
    path = own("thing", whole(folder))
    config = kinds.config(folder, {"kind": path, "strength": 2})
    assert config.kind == path
    made = kinds.build(folder, config)
    assert type(made).__module__ == path
    assert made.config.strength == 2.0
    assert kinds.summary(folder, path) == "Mine: a kind of my own."
    with pytest.raises(kinds.BadConfigError):
        kinds.config(folder, {"kind": path, "strenght": 2})


def test_a_recipe_of_nothing_but_own_kinds(own: Any) -> None:
    objective, method = own("an_objective", whole("objectives")), own("a_method", whole("methods"))
    metric, fmt = own("a_metric", whole("metrics")), own("a_format", whole("data/formats"))
    values = {
        "model": "m",
        "objective": {"kind": objective, "strength": 3},
        "method": method,
        "data": {"train": "x", "format": fmt},
        "evaluation": {"metrics": ["rouge", {"kind": metric, "strength": 4}]},
    }
    recipe = load(values)
    plain = recipe.resolved()
    assert plain["objective"] == {"kind": objective, "strength": 3.0}
    assert plain["method"]["kind"] == method
    assert plain["evaluation"]["metrics"][1] == {"kind": metric, "strength": 4.0}
    assert load(plain) == recipe
    with pytest.raises(RecipeError) as caught:
        load(values, ["objective.strenght=3", "evaluation.metrics.1.strength=lots"])
    assert sorted(fault.message for fault in caught.value.faults) == [
        "evaluation.metrics.1.strength: must be a number, this is 'lots'",
        "objective.strenght: unknown key, did you mean 'strength'?",
    ]


def test_a_module_of_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed command does not have the current folder on its path; users expect it."""
    (tmp_path / "here_only").mkdir()
    (tmp_path / "here_only" / "score.py").write_text(whole("rewards"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert kinds.config("rewards", "here_only.score").kind == "here_only.score"
    assert sys.path[-1] == str(tmp_path), "last, so that it shadows nothing"


CONFIG = (
    "from luthier.core.contracts import KindConfig\nclass Config(KindConfig):\n  kind: str = 'x'\n"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class Metric: ...\n", "module 'mine.bad' defines no class Config"),
        (CONFIG, "module 'mine.bad' defines no class Metric"),
        ("x = 1\n", "module 'mine.bad' defines no class Config and no class Metric"),
        ("Config = 3\nclass Metric: ...\n", "module 'mine.bad' defines no class Config"),
        ("class Config: ...\nclass Metric: ...\n", "Config of module 'mine.bad' is no KindConfig"),
        ("def f(:\n", "cannot import metric 'mine.bad' (SyntaxError"),
        ("1 / 0\n", "cannot import metric 'mine.bad' (ZeroDivisionError: division by zero)"),
        ("import no_such_package\n", "cannot import metric 'mine.bad' (ModuleNotFoundError: No "
         "module named 'no_such_package')"),
        ("raise KeyboardInterrupt\n", ""),
    ],
)  # fmt: skip
def test_a_module_that_is_no_kind(text: str, words: str, own: Any) -> None:
    path = own("bad", text)
    if not words:
        with pytest.raises(KeyboardInterrupt):
            kinds.config("metrics", path)
        return
    with pytest.raises(kinds.BadKindError) as caught:
        kinds.config("metrics", path)
    assert caught.value.error.faults[0].message.startswith(words)
    assert caught.value.error.faults[0].cure


def test_a_copied_module_that_insists_on_its_old_name(own: Any) -> None:
    text = whole("metrics").replace("kind: str", "kind: Literal['mine']")
    path = own("copied", "from typing import Literal\n" + text)
    with pytest.raises(kinds.BadKindError, match="takes no other kind than its own"):
        kinds.config("metrics", path)


@pytest.mark.parametrize("path", ["no.such.module", ".relative", "a..b", ".", "os.path", "mine.no"])
def test_import_paths_that_lead_nowhere(path: str, own: Any) -> None:
    own("other", "")
    with pytest.raises(kinds.BadKindError) as caught:
        kinds.config("objectives", path)
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("perplexty", "unknown metric 'perplexty', did you mean 'perplexity'?"),
        ("Perplexity", "unknown metric 'Perplexity', did you mean 'perplexity'?"),
        ("exact-match", "unknown metric 'exact-match', did you mean 'exact_match'?"),
        ("zzz", "unknown metric 'zzz', one of: "),
        ("_rows", "unknown metric '_rows', one of: "),
        ("../core/kinds", "cannot import metric"),
        ("", "unknown metric ''"),
        (None, "a metric is a name, or a mapping with a 'kind', one of: "),
        (3, "a metric is a name, or a mapping with a 'kind', one of: "),
        ({}, "a metric is a name, or a mapping with a 'kind', one of: "),
        ({"kind": None}, "a metric is a name, or a mapping with a 'kind', one of: "),
        ({"kind": ["rouge"]}, "a metric is a name, or a mapping with a 'kind', one of: "),
    ],
)
def test_kinds_that_do_not_exist(value: Any, words: str) -> None:
    with pytest.raises(kinds.BadKindError) as caught:
        kinds.config("metrics", value)
    assert caught.value.error.faults[0].message.startswith(words)


def test_a_configuration_of_another_folder_is_refused() -> None:
    with pytest.raises(kinds.BadKindError, match="unknown objective 'lora'"):
        kinds.config("objectives", kinds.config("methods", "lora"))


def test_a_package_that_a_kind_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RecipeError, match="method 'lora' needs the package 'bitsandbytes'"):
        kinds.module("methods", "lora")


def test_settings_are_frozen_and_documented() -> None:
    config = kinds.config("methods", "lora")
    with pytest.raises(ValueError, match="frozen"):
        config.kind = "full"  # type: ignore[misc]
    assert KindConfig.model_fields["kind"].description
