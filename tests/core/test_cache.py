"""The cache may be deleted at any time, keeps to its bound, and touches nothing but its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from luthier.core import cache
from luthier.core.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LUTHIER_CACHE_BYTES", raising=False)
    return tmp_path / "cache"


def made(name: str, size: int, age: float, kind: str = "tokens") -> Path:
    """An entry of some bytes that was last used some seconds ago."""
    path = cache.place(kind, name)
    path.mkdir()
    (path / "data").write_bytes(b"x" * size)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("LUTHIER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "luthier"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == tmp_path / ".cache" / "luthier"


def test_keys_are_stable_between_processes() -> None:
    parts = '({"b": 1, "a": [None, 1.5, "ü"]}, pathlib.Path("x"), numpy.int64(3))'
    code = f"import numpy, pathlib; from luthier.core.cache import key; print(key(*{parts}))"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == cache.key({"a": [None, 1.5, "ü"], "b": 1}, Path("x"), np.int64(3))
    assert len({cache.key(1), cache.key("1"), cache.key([1]), cache.key(1, None)}) == 4


def test_a_key_of_something_without_a_stable_text_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="no stable key"):
        cache.key({1, 2})


def test_the_least_recently_used_goes_first() -> None:
    old, used, new = made("old", 100, 300), made("used", 100, 400), made("new", 100, 100)
    cache.place("tokens", "used")
    assert [entry.path.name for entry in cache.entries()] == ["old", "new", "used"]
    assert cache.trim(250) == 100
    assert (old.exists(), new.exists(), used.exists()) == (False, True, True)
    assert cache.trim(250) == 0
    assert cache.clear() == 200
    assert cache.entries() == []


def test_looking_is_not_using() -> None:
    made("a", 10, 3 * 86400)
    made("b", 10, 2 * 86400)
    before = cache.entries()
    assert cache.entries() == before
    assert [entry.path.name for entry in before] == ["a", "b"]


def test_the_bound_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.bound() == cache.DEFAULT_BOUND
    made("a", 3000, 2)
    made("b", 3000, 1)
    monkeypatch.setenv("LUTHIER_CACHE_BYTES", "4kB")
    assert cache.bound() == 4096
    assert cache.trim() == 3000
    monkeypatch.setenv("LUTHIER_CACHE_BYTES", "much")
    with pytest.raises(UserError, match="'much' is not a size"):
        cache.trim()


def test_nothing_but_its_own_is_deleted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LUTHIER_CACHE may point at a folder that holds more than the cache, a home for instance."""
    (home / "photos").mkdir(parents=True)
    (home / "photos" / "one.jpg").write_text("precious")
    (home / "letter.txt").write_text("precious")
    made("a", 10, 1)
    assert cache.clear() == 10
    assert (home / "photos" / "one.jpg").exists()
    assert (home / "letter.txt").exists()


def test_links_are_not_followed(home: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("precious")
    cache.place("tokens", "x")
    (home / "tokens" / "link").symlink_to(tmp_path / "outside")
    cache.clear()
    assert (tmp_path / "outside" / "file").exists()
    assert not (home / "tokens" / "link").is_symlink()


def test_what_was_never_finished_goes_after_a_day(home: Path) -> None:
    young, stale = made(".young.12", 10, 60), made(".stale.11", 20, 2 * 86400)
    assert cache.entries() == [], "it is no entry yet"
    assert cache.trim() == 20
    assert young.exists()
    assert not stale.exists()
    assert cache.clear() == 10


def test_a_cache_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written") as caught:
        cache.place("tokens", "x")
    assert "LUTHIER_CACHE" in caught.value.faults[0].cure
    assert cache.entries() == []
    assert cache.clear() == 0


def test_an_entry_is_whole_or_not_there(home: Path) -> None:
    path = cache.place("tokens", "one")
    with pytest.raises(ZeroDivisionError), cache.made(path) as folder:  # noqa: PT012
        (folder / "data").write_text("half")
        raise ZeroDivisionError
    assert not path.exists()
    with cache.made(path) as folder:
        (folder / "data").write_text("first")
        with cache.made(path) as second:  # another rank, which comes first
            (second / "data").write_text("second")
    assert (path / "data").read_text() in ("first", "second")
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_the_tokenizer_of_a_model_from_scratch_is_made_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A kill while it was written must not spoil every later run on the same rows."""
    from tiny_runs import sums, tiny_recipe

    from luthier import assemble
    from luthier.core import recipe as recipes

    class Torn:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("{")
            raise KeyboardInterrupt

    values = recipes.load(tiny_recipe(tmp_path, data={"train": sums()}))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(assemble, "train_tokenizer", lambda *_, **__: Torn())
        assemble.assemble(values, lambda line: None)
    assert assemble.assemble(values, lambda line: None).train[1].examples.tokens
