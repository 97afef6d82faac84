"""A source that gives nothing is named; one that is merely slow is not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from luthier.core import kinds
from luthier.core.errors import DataError
from luthier.core.recipe import DataSpec
from luthier.data.parts import read_parts
from luthier.data.patience import within
from luthier.data.sources import read

ROW = b'{"text": "a line"}\n'


@contextmanager
def pipe(folder: Path, name: str = "rows.jsonl") -> Iterator[Path]:
    """A pipe that nobody writes to; whoever waits for it at the end is let go."""
    path = folder / name
    os.mkfifo(path)
    try:
        yield path
    finally:
        for _ in range(50):
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:  # nobody waits any more
                break
            time.sleep(0.01)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt", ".jsonl.gz", ".parquet"])
def test_a_pipe_that_nobody_writes_to_is_named(suffix: str, tmp_path: Path) -> None:
    with pipe(tmp_path, f"rows{suffix}") as path:
        start = time.monotonic()
        with pytest.raises(DataError, match="gave nothing for 0 seconds") as caught:
            read(str(path), timeout=0.2)
        assert time.monotonic() - start < 5
    (fault,) = caught.value.faults
    assert (fault.place, fault.code) == (str(path), "stalled")
    assert "data.timeout" in fault.cure


def test_one_that_stops_in_the_middle_is_named(tmp_path: Path) -> None:
    with pipe(tmp_path) as path:

        def write() -> None:
            with path.open("wb") as stream:
                stream.write(ROW * 3)
                stream.flush()
                go.wait(20)

        go = threading.Event()
        writer = threading.Thread(target=write)
        writer.start()
        try:
            with pytest.raises(DataError, match="gave nothing"):
                read(str(path), timeout=0.3)
        finally:
            go.set()
            writer.join()


def test_the_recipes_timeout_counts(tmp_path: Path) -> None:
    objective: Any = kinds.build("objectives", kinds.config("objectives", "language_modeling"))
    with pipe(tmp_path) as path:
        spec = DataSpec(train=str(path), timeout=0.2)
        with pytest.raises(DataError, match="gave nothing"):
            read_parts(spec, objective, 0, lambda line: None)
    assert DataSpec().timeout == 300


def test_a_stream_that_hangs_is_named_and_one_that_drips_is_read() -> None:
    datasets = pytest.importorskip("datasets")
    hang = threading.Event()

    def rows(stuck: bool) -> Iterator[dict[str, str]]:
        for number in range(5):
            if stuck and number == 2:
                hang.wait(20)
            hang.wait(0.25)
            yield {"text": f"line {number}"}

    def stream(stuck: bool) -> Any:
        return datasets.IterableDataset.from_generator(rows, gen_kwargs={"stuck": stuck})

    try:
        with pytest.raises(DataError, match="gave nothing"):
            read(stream(True), timeout=0.3)
        (source,) = read(stream(False), timeout=1.0)  # more in all, less for each
    finally:
        hang.set()
    assert len(source.rows) == 5


def test_time_spent_on_understanding_is_not_waiting() -> None:
    def work(watch: Any) -> int:
        for _ in watch.each([1, 2]):
            threading.Event().wait(0.8)
        return 7

    assert within(0.5, "slow to read", work) == 7


def test_what_goes_wrong_beside_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        within(9, "broken", lambda watch: 1 // 0)
