"""Data sets of the Hugging Face hub, through ``datasets``; remote code is never run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from luthier.core.errors import DataError
from luthier.data.cells import plain

#: Goes through a data set's rows, as ``iter`` does.
Each = Callable[[Any], Iterator[Mapping[str, Any]]]


def rows(
    identity: str, config: str | None, split: str, limit: int | None, each: Each = iter
) -> Iterator[Mapping[str, Any]]:
    """Rows of one split of a data set on the hub.

    Args:
        identity: ``owner/name``.
        config: the configuration, where the data set has several.
        split: ``train``, ``validation`` …
        limit: rows wanted, so that no more are decoded.
        each: goes through the rows, once they are there; downloads have clocks of their own.

    Raises:
        DataError: the hub cannot be reached, or has no such data set, configuration or split.
    """
    # Imported here: it takes a second, and most runs read files.
    datasets = importlib.import_module("datasets")
    try:
        loaded = datasets.load_dataset(identity, name=config, split=split)
    except Exception as error:  # the edge to a network and three libraries: whatever comes is said
        raise _explained(error, identity, config, split) from error
    if limit is not None:
        loaded = loaded.select(range(min(limit, len(loaded))))
    return dataset_rows(loaded, each)


def dataset_rows(dataset: Any, each: Each = iter) -> Iterator[Mapping[str, Any]]:
    """Rows of a ``datasets.Dataset``; class indices become the class names that it knows."""
    features: Mapping[str, Any] = dataset.features or {}
    namers = {name: _namer(feature) for name, feature in features.items()}
    for row in each(dataset):
        yield {
            name: namer(plain(value)) if (namer := namers.get(name)) else plain(value)
            for name, value in row.items()
        }


def _namer(feature: Any) -> Any:
    """A function from class indices to class names, or ``None`` for other features."""
    if hasattr(feature, "int2str"):
        # The hub writes -1 where a label is withheld.
        return lambda value: None if value is None or value < 0 else feature.int2str(value)
    inner = getattr(feature, "feature", None)
    if inner is not None and (name := _namer(inner)):
        return lambda values: None if values is None else [name(value) for value in values]
    return None


def _explained(error: Exception, identity: str, config: str | None, split: str) -> DataError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = " ".join(str(error).split())[:300]
    place = identity
    if "DatasetNotFoundError" in kinds:
        return DataError(
            f"the hub has no data set of that name, or it cannot be seen: {said}",
            place,
            "check the name; a gated or private one needs `hf auth login`; a file is named with "
            "its suffix",
            code="hub-missing",
        )
    if kinds & {
        "OfflineModeIsEnabled",
        "ConnectionError",
        "TransportError",
        "LocalEntryNotFoundError",
    }:
        return DataError(
            f"the hub cannot be reached: {said}",
            place,
            "is the machine online, and HF_HUB_OFFLINE unset? else download the files and name "
            "their paths",
            code="hub-offline",
        )
    if "BuilderConfig" in said or "Config name" in said:
        return DataError(said, place, f"name one as {identity}:config/{split}", code="hub-config")
    if "split" in said.lower():
        there = f"{config}/" if config else ""
        return DataError(
            said, place, f"name a split as {identity}:{there}validation", code="hub-split"
        )
    if "script" in said.lower():
        return DataError(
            said,
            place,
            "it needs its own code, which is never run; name its converted Parquet files instead",
            code="hub-script",
        )
    return DataError(
        f"the data set cannot be loaded: {type(error).__name__}: {said}",
        place,
        "does `datasets.load_dataset` load it? else name its files",
        code="hub",
    )
