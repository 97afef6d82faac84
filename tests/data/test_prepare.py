"""From rows to examples: the same store from the cache, and everything left out is counted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import builders
import numpy as np
import pytest

from luthier.core import kinds
from luthier.core.contracts_tasks import BY_TASK
from luthier.core.errors import DataError
from luthier.core.recipe import DataSpec
from luthier.core.records import Example, Origin, Segment
from luthier.data import prepare
from luthier.data.length import POLICIES
from luthier.data.parts import Part, read_parts
from luthier.data.prepare import Encoded, encode, fitting
from luthier.objectives import sft

Rows = list[dict[str, Any]]
ROWS: Rows = [{"prompt": f"question {i}", "response": builders.SENTENCES[i % 6]} for i in range(12)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def objective(**settings: Any) -> sft.Objective:
    return sft.Objective(sft.Config(**settings))


class Encodings:
    """Counts the records that were encoded, to tell a cache's hit from a miss."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen = 0
        plain = sft.Objective.encode

        def counted(*arguments: Any) -> Any:
            self.seen += 1
            return plain(*arguments)

        monkeypatch.setattr(sft.Objective, "encode", counted)

    def of(self, action: Callable[[], Any]) -> int:
        before = self.seen
        action()
        return self.seen - before


def made(
    source: str, learner: Any = None, codec: Any = None, **settings: Any
) -> tuple[Part, Encoded, list[str]]:
    said: list[str] = []
    spec = DataSpec(train=source, **{"validation": 0, **settings})
    learner = learner or objective()
    part, _ = read_parts(spec, learner, 0, said.append)
    return part, encode(part, spec, learner, codec or builders.codec()), said


def test_a_hit_gives_the_same_store_and_counts(tmp_path: Path, monkeypatch: Any) -> None:
    source, count = write(tmp_path / "rows.jsonl", ROWS), Encodings(monkeypatch)
    _, first, _ = made(source)
    assert count.seen == 12
    _, second, _ = made(source)
    assert count.seen == 12
    assert first.counts == second.counts
    assert set(first.examples.arrays) == set(second.examples.arrays)
    for name, array in first.examples.arrays.items():
        assert array.dtype == second.examples.arrays[name].dtype
        assert np.array_equal(array, second.examples.arrays[name])
    assert isinstance(second.examples.arrays["tokens"], np.memmap)
    assert first.examples.sources == second.examples.sources == (source,)


def test_whatever_decides_tokens_is_a_miss(tmp_path: Path, monkeypatch: Any) -> None:
    source, count = write(tmp_path / "rows.jsonl", ROWS), Encodings(monkeypatch)
    made(source)
    other = "Q: {prompt}\nA:"
    misses: dict[str, Callable[[], Any]] = {
        "objective": lambda: made(source, objective(train_on="all")),
        "template": lambda: made(source, codec=builders.codec(template=other)),
        "length": lambda: made(source, codec=builders.codec(64)),
        "overlong": lambda: made(source, overlong="drop"),
        "malformed": lambda: made(source, malformed="skip"),
        "columns": lambda: made(source, columns={"prompt": "response", "response": "prompt"}),
        "limit": lambda: made(source, limit=11),
        "split": lambda: made(source, validation=0.25),
        "place": lambda: made(write(tmp_path / "moved.jsonl", ROWS)),
    }
    for name, action in misses.items():
        assert count.of(action) > 0, name
    for name, action in misses.items():
        assert count.of(action) == 0, name
    write(tmp_path / "rows.jsonl", ROWS[::-1])
    assert count.of(lambda: made(source)) == 12


ANSWERED = {"text": "nothing else", "role": "assistant", "replies": []}
ASKED_AGAIN = {"text": "and what more?", "role": "prompter", "replies": [ANSWERED]}
REPLIES = [
    {"text": "a far better answer", "role": "assistant", "rank": 0, "replies": []},
    {"text": "no", "role": "assistant", "rank": 1, "replies": [ASKED_AGAIN, ASKED_AGAIN]},
]
TREES: Rows = [
    {"prompt": {"text": f"question {i}", "role": "prompter", "replies": REPLIES}} for i in range(3)
]


def test_trees_become_examples_with_branches_and_settings_decide(
    tmp_path: Path, monkeypatch: Any
) -> None:
    source, count = write(tmp_path / "trees.jsonl", TREES), Encodings(monkeypatch)
    _, trees, said = made(source)
    assert said[0].endswith("3 rows read as oasst (prompt='prompt'; trees with all their paths)")
    assert [len(example.segments) for example in trees.examples] == [5, 5, 5]
    _, best, _ = made(source, format={"kind": "oasst", "paths": "best"})
    assert [len(example.segments) for example in best.examples] == [1, 1, 1]
    assert count.seen == 6
    whole = trees.examples[0]
    forks = whole.ancestors(4)[:-1]
    assert len(forks) == 2
    limit = sum(len(whole.segments[i].tokens) for i in forks)
    _, short, _ = made(source, codec=builders.codec(limit), overlong="right")
    assert [len(example.segments) for example in short.examples] == [3, 3, 3]
    assert (short.counts["cut"]["examples"], short.counts["cut"]["dropped"]) == (3, 0)


def test_a_users_own_objective_is_encoded_anew_when_its_code_changes(
    tmp_path: Path, monkeypatch: Any
) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    code = (
        "from luthier.objectives import sft\n"
        "class Config(sft.Config):\n    kind: str = 'luthier_own'\n"
        "class Objective(sft.Objective):\n"
        "    def encode(self, record, codec):\n        return super().encode(record, codec)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    count, seen = Encodings(monkeypatch), []
    for text in (code, code, code + "# changed\n"):
        (tmp_path / "luthier_own.py").write_text(text, encoding="utf-8")
        sys.modules.pop("luthier_own", None)
        own = __import__("luthier_own")
        seen.append(count.of(lambda own=own: made(source, own.Objective(own.Config()))))
    assert seen == [12, 0, 12]


def test_examples_stand_in_the_order_of_the_rows_with_their_lines(tmp_path: Path) -> None:
    rows = ROWS * 20  # more than the encoder holds at once
    _, encoded, _ = made(write(tmp_path / "rows.jsonl", rows))
    assert [encoded.examples.origin(i).line for i in range(240)] == list(range(1, 241))


def test_counts_say_what_there_is(tmp_path: Path) -> None:
    part, encoded, said = made(write(tmp_path / "rows.jsonl", ROWS))
    store, counts = encoded.examples, encoded.counts
    assert (counts["rows"], counts["examples"], counts["skipped"]) == (12, 12, 0)
    assert counts["tokens"] == int(store.sizes.sum())
    assert counts["targets"] == sum(len(e.targets["lm"]["token"]) for e in store)
    assert counts["fingerprint"] == part.fingerprint
    assert not any(counts["cut"].values())
    assert len(said) == 1
    assert "12 rows read as" in said[0]


def test_an_example_that_cannot_be_made_is_refused_with_its_line_or_counted(tmp_path: Path) -> None:
    rows = [*ROWS]
    rows[3] = {"prompt": "long", "response": "word " * 300}
    source = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"rows\.jsonl:4"):
        made(source)
    _, encoded, _ = made(source, malformed="skip")
    assert encoded.counts["skipped"] == 1
    assert encoded.counts["examples"] == 11
    # A store made while skipping must not answer for a recipe that refuses.
    with pytest.raises(DataError, match=r"rows\.jsonl:4"):
        made(source)


def test_rows_that_cannot_be_read_are_counted_and_said(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    with Path(source).open("a", encoding="utf-8") as stream:
        stream.write("{half a row\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:13"):
        made(source)
    _, encoded, said = made(source, malformed="skip")
    assert encoded.counts["skipped"] == 1
    assert any("1 malformed rows skipped" in line for line in said)


def test_overlong_rows_are_refused_cut_or_dropped_and_counted(tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": "long", "response": "word " * 300}]
    source = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"rows\.jsonl:13"):
        made(source)
    _, dropped, _ = made(source, overlong="drop")
    assert dropped.counts["cut"]["dropped"] == 1
    assert dropped.counts["examples"] == 12
    _, shortened, _ = made(source, overlong="right")
    assert shortened.counts["cut"]["examples"] == 1
    assert shortened.counts["cut"]["tokens"] > 0
    assert int(shortened.examples.sizes.max()) == 128


def test_many_faults_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "long", "response": "word " * 300} for _ in range(15)]
    with pytest.raises(DataError, match="5 more examples like these") as caught:
        made(write(tmp_path / "rows.jsonl", rows))
    assert len(caught.value.faults) == 11


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "long", "response": "word " * 300} for _ in range(3)]
    with pytest.raises(DataError, match="no example is left"):
        made(write(tmp_path / "rows.jsonl", rows), overlong="drop")


def test_a_share_is_held_out_and_a_source_of_its_own_is_taken_whole(tmp_path: Path) -> None:
    source, held = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", ROWS[:5])
    said: list[str] = []

    def parts(validation: Any) -> tuple[Part, Part | None]:
        return read_parts(
            DataSpec(train=source, validation=validation), objective(), 0, said.append
        )

    train, kept = parts(0.25)
    assert kept is not None
    assert (len(train.records), len(kept.records)) == (9, 3)
    assert not {r.origin for r in train.records} & {r.origin for r in kept.records}
    train, kept = parts(held)
    assert kept is not None
    assert (len(train.records), len(kept.records)) == (12, 5)
    for none in (0, None):
        train, kept = parts(none)
        assert (len(train.records), kept) == (12, None)


@pytest.mark.parametrize("kind", kinds.names("objectives"))
def test_every_objective_says_what_becomes_of_overlong_examples(kind: str) -> None:
    settings = kinds.config("objectives", builders.settings("objectives", kind))
    learner = kinds.build("objectives", settings)
    asked = learner.tasks.values() if learner.overlong == BY_TASK else [learner]
    assert all(each.overlong in POLICIES for each in asked)


def test_the_cache_is_versioned() -> None:
    assert isinstance(prepare._CACHE_VERSION, int)


def test_leaves_that_a_loss_couples_are_not_cut_apart() -> None:
    """An objective says whether they are; having the word is not saying yes."""
    one = np.array([5])
    tree = (Segment(np.array([3, 4])), Segment(one, parent=0), Segment(one, parent=1))
    table = {
        "position": np.array([1, 2]),
        "token": np.array([5, 5]),
        "weight": np.ones(2, dtype=np.float32),
    }
    example = Example(tree, {"lm": table}, Origin("made", 1))

    class Coupled(sft.Objective):
        independent_leaves: ClassVar[bool] = False

    codec: Any = SimpleNamespace(
        max_length=3, tokenizer=SimpleNamespace(bos_token_id=None), frame=frozenset()
    )
    apart, _ = fitting(example, sft.Objective(sft.Config()), codec, "right")
    whole, cut = fitting(example, Coupled(sft.Config()), codec, "right")
    assert (len(apart), len(whole), cut.dropped) == (1, 0, 1)
