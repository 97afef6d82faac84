"""Files of columns: Parquet, and what ``datasets`` saved; rows are made a piece at a time."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from luthier.core.errors import DataError
from luthier.data import hub
from luthier.data.cells import plain
from luthier.data.lines import Found
from luthier.data.patience import Watch


def _parquet_rows(path: Path, watch: Watch) -> Iterator[Found]:
    pyarrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    number = 0
    try:
        with watch.open(path) as raw, parquet.ParquetFile(raw) as file:
            for batch in file.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield number, plain(fields)
    except (pyarrow.ArrowException, ValueError) as error:
        raise _unreadable(path, "Parquet", number, error) from error


def _arrow_rows(path: Path, watch: Watch) -> Iterator[Found]:
    """Mapped into memory, never read into it; classes come with their names."""
    pyarrow = importlib.import_module("pyarrow")
    datasets = importlib.import_module("datasets")
    number = 0
    with watch.open(path):
        pass  # a file that is not there, or gives nothing, is said as of every other kind
    try:
        for number, fields in enumerate(hub.dataset_rows(datasets.Dataset.from_file(str(path))), 1):
            yield number, dict(fields)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise _unreadable(path, "Arrow", number, error) from error


def _unreadable(path: Path, kind: str, number: int, error: Exception) -> DataError:
    return DataError(
        f"cannot be read as {kind} after row {number}: {error}",
        str(path),
        "was it written whole?",
        code=kind.lower(),
    )


#: Readers of files that are no lines of text, by suffix.
TABLES: Mapping[str, Callable[[Path, Watch], Iterator[Found]]] = {
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
}
