"""A second start knows the rows without reading them, and never takes other rows for them."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from luthier.core import kinds
from luthier.core.errors import DataError
from luthier.core.recipe import DataSpec
from luthier.data import identity, sides
from luthier.data.parts import Part
from luthier.data.sides import ChangedError, Later, known_parts, settle

Rows = list[dict[str, Any]]
ROWS: Rows = [{"prompt": f"q {i}", "response": "words " * (i % 5 + 1)} for i in range(40)]
LABELLED: Rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


class Readings:
    """Counts how often rows are really read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen = 0
        plain = sides.read_parts

        def counted(*arguments: Any) -> Any:
            self.seen += 1
            return plain(*arguments)

        monkeypatch.setattr(sides, "read_parts", counted)

    def of(self, action: Callable[[], Any]) -> int:
        before = self.seen
        action()
        return self.seen - before


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    return Readings(monkeypatch)


def rested(path: Path) -> str:
    """A file that nobody has touched for a while."""
    before = path.stat().st_mtime_ns - 10**10
    os.utime(path, ns=(before, before))
    return str(path)


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rested(path)


class Found(NamedTuple):
    train: Part
    held: Any


def begin(source: Any, kind: Any = "sft", seed: int = 0, *, verify: bool = False, **s: Any) -> Any:
    said: list[str] = []
    spec = DataSpec(train=source, **{"validation": 0.25, **s})
    objective = kinds.build("objectives", kinds.config("objectives", kind))
    return Found(*known_parts(spec, objective, seed, said.append, verify=verify)), said


def overwrite(path: Path, at: int, byte: bytes) -> None:
    """Changes a byte and puts the time back."""
    seen = path.stat()
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(byte)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def large(path: Path) -> tuple[str, int]:
    """A file with a place that its sample does not hold."""
    rng = random.Random(1)
    rows = [{"prompt": f"q {i}", "response": str(rng.random()) * 20} for i in range(3000)]
    source = write(path, rows)
    text = path.read_bytes()
    drawn = random.Random(len(text))
    last = len(text) - identity.BLOCK
    places = [0, last, *(drawn.randint(0, last) for _ in range(identity.BETWEEN))]
    free = (
        at
        for at in range(len(text))
        if text[at : at + 2] == b"0." and not any(p <= at + 2 < p + identity.BLOCK for p in places)
    )
    return source, next(free) + 2


def test_a_second_start_reads_nothing_and_knows_the_same(
    tmp_path: Path, readings: Readings
) -> None:
    rows = [*ROWS[:30], {"prompt": "a  b ", "response": "c"}]
    source = write(tmp_path / "rows.jsonl", rows)
    with Path(source).open("a", encoding="utf-8") as stream:
        stream.write("{half a row\n")
    rested(Path(source))
    settings: dict[str, Any] = {"malformed": "skip", "clean": "whitespace"}
    first, said = begin(source, **settings)
    assert readings.seen == 1
    second, again = begin(source, **settings)
    assert readings.seen == 1
    assert said == again
    assert any("1 malformed rows skipped" in line for line in again)
    for one, other in ((first.train, second.train), (first.held, second.held)):
        assert isinstance(other.records, Later)
        assert len(one.records) == len(other.records)
        for name in ("fingerprint", "skipped", "formats", "cleaned", "sources"):
            assert getattr(one, name) == getattr(other, name), name
    assert readings.seen == 1
    assert tuple(second.held.records) == first.held.records
    assert readings.seen == 1, "what is measured with was kept"
    assert tuple(second.train.records) == first.train.records
    assert second.train.records[3:5] == first.train.records[3:5]
    assert second.train.records[-1] == first.train.records[-1]
    assert readings.seen == 2


def test_what_an_objective_takes_from_the_rows_is_kept_by_their_content(
    tmp_path: Path, readings: Readings
) -> None:
    source = write(tmp_path / "rows.jsonl", LABELLED)
    objective = kinds.build("objectives", kinds.config("objectives", "classification"))
    first, _ = begin(source, "classification")
    made = settle(objective, first.train, ())
    second, _ = begin(source, "classification")
    assert settle(objective, second.train, ()).config == made.config
    assert readings.seen == 1
    assert made.config.classes == ("a", "b")
    assert settle(objective, second.train, ("b", "a")).config.classes == ("b", "a")
    write(Path(source), [*LABELLED, *({"text": f"text {i}!", "label": "c"} for i in range(9))])
    other, _ = begin(source, "classification")
    assert settle(objective, other.train, ()).config.classes == ("a", "b", "c")


def test_rows_that_a_model_chose_are_read_at_every_start(
    tmp_path: Path, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    plain = sides.read_parts

    def asking(*arguments: Any) -> Any:
        arguments[-1].embed("a model", ["text"], None)
        return plain(*arguments)

    monkeypatch.setattr(sides, "read_parts", asking)
    spec = DataSpec(train=source, validation=0)
    objective = kinds.build("objectives", kinds.config("objectives", "sft"))
    models: Any = SimpleNamespace(embed=lambda *_: None)
    for count in (1, 2):
        known_parts(spec, objective, 0, lambda line: None, models)
        assert readings.seen == count


def test_one_byte_and_a_new_time_are_seen(tmp_path: Path, readings: Readings) -> None:
    source, at = large(tmp_path / "rows.jsonl")
    first, _ = begin(source)
    with Path(source).open("r+b") as stream:
        stream.seek(at)
        stream.write(b"x")
    later = Path(source).stat().st_mtime_ns - 5 * 10**9
    os.utime(source, ns=(later, later))
    second, _ = begin(source)
    assert readings.seen == 2
    assert first.train.fingerprint != second.train.fingerprint


def test_a_byte_of_the_sample_is_seen_whatever_the_time(tmp_path: Path, readings: Readings) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    begin(source)
    overwrite(Path(source), Path(source).read_bytes().index(b"words"), b"W")
    begin(source)
    assert readings.seen == 2


def test_a_change_behind_size_and_time_is_found_by_verify(
    tmp_path: Path, readings: Readings
) -> None:
    source, at = large(tmp_path / "rows.jsonl")
    first, _ = begin(source)
    _, said = begin(source, verify=True)
    assert said[-1] == "verified: the rows are those that were read before"
    overwrite(Path(source), at, b"x")
    blind, _ = begin(source)
    assert blind.train.fingerprint == first.train.fingerprint, "nothing but verify can tell"
    found, said = begin(source, verify=True)
    assert said[-1].startswith(f"changed behind an unchanged size and time: {source};")
    assert found.train.fingerprint != first.train.fingerprint
    count = readings.of(lambda: begin(source))
    again, _ = begin(source)
    assert (count, again.train.fingerprint) == (0, found.train.fingerprint)


def test_verify_says_where_it_has_no_effect_or_nothing_to_compare(tmp_path: Path) -> None:
    _, said = begin(ROWS, verify=True)
    assert said[-1] == "verify has no effect: these rows are read at every start"
    _, said = begin(write(tmp_path / "rows.jsonl", ROWS), verify=True)
    assert said[-1] == "verified: all rows were read, for the first time"


def test_records_that_are_read_after_all_must_be_those_noted(
    tmp_path: Path, readings: Readings
) -> None:
    source, at = large(tmp_path / "rows.jsonl")
    begin(source)
    known, _ = begin(source)
    overwrite(Path(source), at, b"x")
    with pytest.raises(ChangedError, match="not those that were read before"):
        list(known.train.records)
    assert readings.of(lambda: begin(source)) == 1, "the note is thrown away"
    assert readings.of(lambda: begin(source)) == 0


#: A value other than the default of every setting that decides records.
OTHERS: dict[str, Any] = {
    "validation": 0.5,
    "clean": ("whitespace",),
    "subset": 8,
    "group": "prompt",
    "format": "prompt_response",
    "columns": {"prompt": "response", "response": "prompt"},
    "malformed": "skip",
    "limit": 30,
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_every_setting_that_decides_records_counts(tmp_path: Path, readings: Readings) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    settings = set(DataSpec.model_fields) - identity.LATER - identity.DRAWN - {"train"}
    spec, sft = DataSpec(train=source), kinds.build("objectives", kinds.config("objectives", "sft"))
    plain = identity.identity(spec, sft, 0)
    assert plain is not None
    for name in settings:  # those to come as well: what is no exception counts
        changed = spec.model_copy(update={name: OTHERS.get(name, "another value")})
        if name != "format" or name in OTHERS:
            assert identity.identity(changed, sft, 0) not in (plain, None), name
    begin(source)
    for name, value in OTHERS.items():
        assert readings.of(lambda n=name, v=value: begin(source, **{n: v})) == 1, name
    assert readings.of(lambda: begin(source, seed=1)) == 1
    assert readings.of(lambda: begin(source, {"kind": "sft", "train_on": "all"})) == 1
    assert readings.of(lambda: begin(source, template="Q: {prompt}", max_length=64)) == 0


def test_a_users_own_code_counts(
    tmp_path: Path, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    code = "from luthier.data.cleaners.whitespace import Cleaner as Plain\n"
    code += "from own_words import WORD\nfrom luthier.core.contracts import KindConfig\n"
    code += "class Config(KindConfig):\n    kind: str = 'own_kinds.own'\n"
    code += "class Cleaner(Plain):\n    pass\n"
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_kinds").mkdir()
    (tmp_path / "own_kinds" / "__init__.py").write_text("", encoding="utf-8")
    counts = []
    for text, word in ((code, "1"), (code, "1"), (code + "# more\n", "1"), (code, "22")):
        (tmp_path / "own_kinds" / "own.py").write_text(text, encoding="utf-8")
        (tmp_path / "own_words.py").write_text(f"WORD = {word}\n", encoding="utf-8")
        for name in ("own_kinds.own", "own_kinds", "own_words"):
            sys.modules.pop(name, None)
        counts.append(readings.of(lambda: begin(source, clean="own_kinds.own")))
    assert counts == [1, 0, 1, 1], "its own text, and that of what it imports"


def test_luthiers_own_code_counts(
    tmp_path: Path, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    begin(source)
    monkeypatch.setattr(identity, "_CODE", identity._CODE[1:])
    assert readings.of(lambda: begin(source)) == 1


def test_rows_without_files_are_read_at_every_start(tmp_path: Path, readings: Readings) -> None:
    begin(ROWS)
    assert readings.of(lambda: begin(ROWS)) == 1
    pipe = tmp_path / "rows.jsonl"
    os.mkfifo(pipe)
    sft = kinds.build("objectives", kinds.config("objectives", "sft"))
    for source in (str(pipe), ROWS, "owner/name", [str(pipe)]):
        assert identity.identity(DataSpec(train=source), sft, 0) is None
    assert not list((tmp_path / "cache" / "sides").glob("*/"))


def test_a_file_written_just_now_is_not_taken_for_known(tmp_path: Path, readings: Readings) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    begin(str(path))
    assert readings.of(lambda: begin(str(path))) == 1


def test_a_file_that_changes_while_it_is_read_is_not_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else other rows would be noted for it, and found where it is put back as it was."""
    path = tmp_path / "rows.jsonl"
    source = write(path, ROWS)
    content, seen = path.read_bytes(), path.stat()
    plain = sides.read_parts

    def beside(*arguments: Any) -> Any:
        write(path, ROWS[::-1])
        return plain(*arguments)

    monkeypatch.setattr(sides, "read_parts", beside)
    first, _ = begin(source)
    monkeypatch.setattr(sides, "read_parts", plain)
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    second, _ = begin(source)
    assert first.train.fingerprint != second.train.fingerprint


def test_a_file_more_in_a_folder_is_seen(tmp_path: Path, readings: Readings) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    write(folder / "a.jsonl", ROWS[:20])
    begin(str(folder))
    assert readings.of(lambda: begin(str(folder))) == 0
    write(folder / "b.jsonl", ROWS[20:])
    found, _ = begin(str(folder))
    assert readings.seen == 2
    assert len(found.train.records) + len(found.held.records) == 40


def test_a_source_of_its_own_for_validation_counts(tmp_path: Path, readings: Readings) -> None:
    source, held = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", ROWS[:5])
    begin(source, validation=held)
    assert readings.of(lambda: begin(source, validation=held)) == 0
    write(Path(held), ROWS[:6])
    found, _ = begin(source, validation=held)
    assert (readings.seen, len(found.held.records)) == (2, 6)


def test_the_sources_of_a_mixture_count_and_their_weights_do_not(
    tmp_path: Path, readings: Readings
) -> None:
    one, two = write(tmp_path / "a.jsonl", ROWS[:20]), write(tmp_path / "b.jsonl", ROWS[20:])

    def mixed(weight: int, **more: Any) -> Any:
        entries = [{"source": one, "weight": weight}, {"source": two, **more}]
        return begin(None, mixture=entries)

    first, _ = mixed(1)
    second, _ = mixed(2)
    assert readings.seen == 1
    assert (first.train.mixed, first.train.sources) == (second.train.mixed, second.train.sources)
    assert second.train.entries == first.train.entries
    assert readings.of(lambda: mixed(1, limit=5)) == 1
    write(Path(two), ROWS[21:])
    assert readings.of(lambda: mixed(1)) == 1


def test_faulty_rows_are_never_noted(tmp_path: Path, readings: Readings) -> None:
    source = write(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "q"}])
    for _ in range(2):
        with pytest.raises(DataError):
            begin(source)
    assert readings.seen == 2


def test_nothing_held_out_is_known_as_nothing(tmp_path: Path, readings: Readings) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    for _ in range(2):
        found, _ = begin(source, validation=0)
        assert found.held is None
    assert readings.seen == 1


def test_a_note_that_cannot_be_read_is_made_again(tmp_path: Path, readings: Readings) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    begin(source)
    (note,) = (tmp_path / "cache" / "sides").glob("*/note.json")
    note.write_text("{", encoding="utf-8")
    assert readings.of(lambda: begin(source)) == 1
    assert readings.of(lambda: begin(source)) == 0
