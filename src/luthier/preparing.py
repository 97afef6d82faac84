"""A recipe's data made ready without training: cleaned, split, put into tokens, kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from luthier.assemble import describe, encoded, noun, vetted
from luthier.core.errors import DataError
from luthier.core.recipe import Recipe
from luthier.data.mixture import drawing
from luthier.data.parts import Part
from luthier.data.sides import ChangedError, known_parts
from luthier.data.writing import write_rows
from luthier.preview import Preview
from luthier.stages import previews


@dataclass(frozen=True)
class Prepared:
    """What was made ready of one run.

    Attributes:
        said: what was understood, mended and left out, line by line.
        counts: of each side, as a run's ``environment.json`` has them.
        files: the rows that were written, where they were asked for.
    """

    said: tuple[str, ...]
    counts: dict[str, dict[str, Any]]
    files: tuple[Path, ...]


def prepare(recipe: Recipe, output: Path | None = None, *, verify: bool = False) -> list[Prepared]:
    """Reads, cleans, splits and encodes, one entry a stage; the tokens lie in the cache then.

    Args:
        recipe: what ``luthier train`` would run; no weight is loaded.
        output: a folder for the rows of each side as JSON lines, after cleaning.
        verify: read all rows though they are known; see :mod:`luthier.data.sides`.

    Raises:
        UserError: what training would refuse.
    """
    try:
        return _each(recipe, output, verify)
    except ChangedError:  # what was known of the rows is thrown away by now
        return _each(recipe, output, verify)


def _each(recipe: Recipe, output: Path | None, verify: bool) -> list[Prepared]:
    found = []
    read = partial(known_parts, verify=verify)
    for number, seen in enumerate(previews(recipe, read), start=1):
        inner = output / f"stage-{number}" if output and recipe.stages else output
        found.append(_prepared(seen, inner))
    return found


def _prepared(seen: Preview, output: Path | None) -> Prepared:
    if seen.faults:
        raise DataError.of(seen.faults)
    said, counts, files = list(seen.said), {}, []
    vetted(seen.recipe, (seen.train, seen.held), said.append)
    for name, part in _sides(seen):
        made = encoded(seen.recipe, part, seen.objective, seen.loaded, seen.codec, said.append)
        counts[name] = made.counts
        said.append(describe(name, made.counts, noun(seen.objective)))
        if name == "train" and (
            drawn := drawing(seen.recipe.data, seen.objective, part, made.examples)
        ):
            said += drawn[0].lines()
        if output is not None:
            files.append(output / f"{name}.jsonl")
            write_rows(files[-1], part.records)
    return Prepared(tuple(said), counts, tuple(files))


def _sides(seen: Preview) -> Iterator[tuple[str, Part]]:
    yield "train", seen.train
    if seen.held is not None:
        yield "validation", seen.held
