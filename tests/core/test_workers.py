"""Shared work is what one process would have made of it, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.core import workers
from luthier.core.workers import DiedError, processes, shared


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started with the first piece of work."""
    monkeypatch.setattr(workers, "AFTER", -1.0)


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for a while."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.usefixtures("at_once")
def test_results_are_in_order_and_the_processes_several() -> None:
    found = list(shared("crew_work:squares", 7, range(40), 3))
    assert [value for value, _ in found] == [i * i + 7 for i in range(40)]
    pids = {pid for _, pid in found}
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert all(map(gone, pids))


def test_one_process_is_this_one_and_so_is_short_work() -> None:
    for count in (1, 4):
        found = list(shared("crew_work:squares", 0, range(5), count))
        assert found == [(i * i, os.getpid()) for i in range(5)]


def test_what_takes_longer_is_handed_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "AFTER", 0.05)
    found = list(shared("crew_work:squares", 0, range(30), 2))
    assert [value for value, _ in found] == [i * i for i in range(30)]
    mine = [pid == os.getpid() for _, pid in found]
    assert mine[0]
    assert not mine[-1]
    assert mine == sorted(mine, reverse=True)


@pytest.mark.usefixtures("at_once")
def test_pieces_are_not_asked_for_long_before_their_turn() -> None:
    asked: list[int] = []

    def pieces() -> Iterator[int]:
        for number in range(1000):
            asked.append(number)
            yield number

    for number, _ in enumerate(shared("crew_work:squares", 0, pieces(), 2)):
        assert len(asked) - number <= 2 * 2 + 1
        if number > 20:
            break


@pytest.mark.usefixtures("at_once")
def test_what_is_printed_there_is_no_answer() -> None:
    assert list(shared("crew_work:talking", None, "abc", 2)) == ["aaa", "bbb", "ccc"]


@pytest.mark.usefixtures("at_once")
def test_an_error_there_is_one_here_with_its_lines() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)crew_work\.py.*KeyError: 'three is wrong'"):
        list(shared("crew_work:failing", None, range(9), 2))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("how", "said"),
    [(int(signal.SIGKILL), "by SIGKILL, as the system does where memory"), (0, "with status 9")],
)
def test_a_process_that_dies_is_an_error_with_a_cure(how: int, said: str) -> None:
    with pytest.raises(DiedError, match=said) as caught:
        list(shared("crew_work:dying", how, range(9), 2))
    assert "--workers 1" in caught.value.faults[0].cure


@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_sent_is_worked_on_here() -> None:
    told: Any = [lambda: None]
    assert list(shared("crew_work:talking", told, "ab", 2)) == ["aaa", "bbb"]


def test_as_many_as_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert processes(3) == 3
    assert processes("auto") == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert processes("auto") == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "100")
    assert processes("auto") == 1


SCRIPT = """
from luthier.core import workers
workers.AFTER = -1.0
# No guard of `if __name__ == "__main__"`: this is run once.
print("begun", flush=True)
for pid in workers.shared("crew_work:slow", None, range(1000), 2):
    print(pid, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_takes_its_own_with_it(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    begun = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert begun.stdout is not None
    assert begun.stdout.readline() == "begun\n"
    pids = {int(begun.stdout.readline()) for _ in range(6)}
    # A terminal's Ctrl-C is for all of them, a kill for one.
    os.killpg(begun.pid, how) if how == signal.SIGINT else begun.send_signal(how)
    rest, error = begun.communicate(timeout=20)
    assert "begun" not in rest
    assert begun.returncode != 0
    assert len(pids) == 2
    assert all(map(gone, pids))
    if how == signal.SIGINT:
        assert error.count("Traceback") == 1, "the others say nothing"
