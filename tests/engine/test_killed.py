"""Killed for real, by SIGKILL, wherever a run writes and at any moment: never lost, never other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent


def killing(*words: object) -> dict[str, Any]:
    """What ``killing.py`` found."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(TESTS / "engine" / "killing.py"), *map(str, words)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=2400,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_before_any_write_of_a_save_one_of_the_two_checkpoints_is_whole(
    tmp_path: Path,
) -> None:
    *killed, last = killing("save", tmp_path)["found"]
    assert len(killed) >= 20
    assert {one["ended"] for one in killed} == {-signal.SIGKILL}
    assert last["ended"] == 0
    for one in (*killed, last):
        assert one["kept"] == "step-000002", one
        assert one["tokens"] in (-1, 0), one  # the checkpoint before, or the new one
        assert not [name for name in one["names"] if name.startswith(".")], one
        assert one["said"] == [], one
    assert killed[0]["tokens"] == -1
    assert last["tokens"] == 0
    assert last["names"] == ["step-000002"]


def right(one: dict[str, Any], whole: dict[str, Any], *but: str) -> bool:
    return all(one[name] == whole[name] for name in whole if name not in but)


@pytest.mark.slow
def test_law_4_killed_before_any_of_its_writes_and_resumed_is_never_killed(tmp_path: Path) -> None:
    """Data, training, saves, result, evaluation, report: every write that a run makes."""
    found = killing("writes", tmp_path, 1, 1)
    *killed, last = found["found"]
    assert last["ended"] == 0
    assert len(killed) >= 80
    assert found["whole"]["finished"]
    for one in killed:
        assert (one["ended"], one["resumed"]) == (-signal.SIGKILL, 0), one
        early = one["looked_finished"]  # killed when all was written, and only the lock was left
        assert early is None or right(early, found["whole"], "left"), one
        assert right(one, found["whole"]), one


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_law_4_killed_at_any_moment_again_and_again(seed: int, tmp_path: Path) -> None:
    found = killing("random", tmp_path, seed, 5)
    (one,) = found["found"]
    assert one["ends"][-1] == 0
    assert -signal.SIGKILL in one["ends"]
    assert right(one, found["whole"]), one
