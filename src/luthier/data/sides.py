"""Both sides of a recipe's rows, without reading what was read before.

A start of the same recipe on the same files finds what an earlier one learned of them: each
side's content fingerprint (under which its tokens lie in the cache, and what was found wrong with
it) and its counts. Its records are then read only once somebody asks for them.

What makes two starts the same is their *identity*: path, size, time of the last change and a
sample of the bytes of every file, the settings that decide records, the text of Luthier's own
code that does and of a user's own modules. Nothing else is looked at, so a file whose content
changed while size, time and sample stayed is taken for what it was; so is a file that a user's own
module reads by itself. ``verify`` reads everything, compares, and says what changed.

Where records are read after all, their content fingerprint must be the one noted. If it is not,
the note is thrown away and :class:`ChangedError` raised: whoever holds tokens of the old rows
begins anew. The held-out records themselves are kept beside the note, as measuring wants them
after hours of training in which the file may well have been edited.

Rows in memory, pipes and the hub have no such identity and are read at every start; so are rows
that a model wrote or chose, and a file that was written within the last seconds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast, overload

from luthier.core import cache, kinds
from luthier.core.contracts import Objective, Settling
from luthier.core.contracts_data import DataModels
from luthier.core.errors import DataError
from luthier.core.recipe import DataSpec
from luthier.core.records import Record
from luthier.data.identity import code, identity
from luthier.data.kept import keep, kept
from luthier.data.parts import Part, read_parts

Say = Callable[[str], None]
Sides = tuple[Part, Part | None]

_NOTE, _HELD, _OBJECTIVE = "note.json", "held.jsonl", "objective.json"


class ChangedError(DataError):
    """The rows are not those that were read before, though their files look the same."""


class Later(Sequence[Record]):
    """Records that are read once somebody looks at one; their number is known before."""

    def __init__(self, count: int, read: Callable[[], Sequence[Record]]) -> None:
        self._count, self._read = count, read
        self._known: Sequence[Record] | None = None

    @property
    def known(self) -> bool:
        """Whether they have been read."""
        return self._known is not None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self._whole()[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._whole())

    def _whole(self) -> Sequence[Record]:
        if self._known is None:
            self._known = self._read()
        return self._known


def known_parts(
    spec: DataSpec,
    objective: Objective,
    seed: int,
    say: Say,
    models: DataModels | None = None,
    *,
    verify: bool = False,
) -> Sides:
    """Training and validation records, read where they are not known yet.

    Args:
        spec: the recipe's data part.
        objective: its record types are looked for.
        seed: the run's.
        say: takes a line for the user.
        models: opens what ``data.augment`` or ``data.subset`` name; where one of them is asked,
            the rows are read at every start.
        verify: read all content, and say what changed behind an unchanged size and time.

    Raises:
        DataError: as :func:`luthier.data.parts.read_parts`.
    """
    before = identity(spec, objective, seed)
    folder = None if before is None else cache.place("sides", before)
    note = None if folder is None else _noted(folder)
    if folder is not None and note is not None and not verify:
        for line in note["said"]:
            say(line)
        return _known(folder, note, partial(read_parts, spec, objective, seed, _silent, models))
    said: list[str] = []

    def both(line: str) -> None:
        said.append(line)
        say(line)

    asked = _Asked(models)
    found = read_parts(spec, objective, seed, both, asked)
    folder = None if asked.used else folder
    if verify:
        say(_verdict(note, found, folder))
    if folder is not None and before == identity(spec, objective, seed):
        _remember(folder, found, said)
    return found


def settle(objective: Settling, part: Part, known: Sequence[str]) -> Objective:
    """What :meth:`~luthier.core.contracts.Settling.settled` makes of records, kept by content.

    Raises:
        DataError: records that the objective cannot settle on.
    """
    config = cast(Objective, objective).config
    name = cache.key(part.fingerprint, config.model_dump(mode="json"), list(known), code(objective))
    place = cache.place("settled", name)
    with suppress(OSError, ValueError):
        plain = json.loads((place / _OBJECTIVE).read_text(encoding="utf-8"))
        made: Objective = kinds.build("objectives", kinds.config("objectives", plain))
        return made
    made = objective.settled(part.records, known)
    with cache.made(place) as folder:
        plain = json.dumps(made.config.model_dump(mode="json"))
        (folder / _OBJECTIVE).write_text(plain, encoding="utf-8")
    return made


class _Asked:
    """Opens models as another does, and knows whether one was asked for."""

    def __init__(self, models: DataModels | None) -> None:
        self._models, self.used = models, False

    def __getattr__(self, name: str) -> Any:
        self.used = True
        return getattr(self._models, name)


def _verdict(note: dict[str, Any] | None, found: Sides, folder: Path | None) -> str:
    """What ``verify`` says; a note that does not hold is thrown away."""
    if folder is None:
        return "verify has no effect: these rows are read at every start"
    if note is None:
        return "verified: all rows were read, for the first time"
    changed = [
        source
        for name, part in _named(found)
        if (note[name] or {}).get("fingerprint") != part.fingerprint
        for source in part.sources
    ]
    if not changed:
        return "verified: the rows are those that were read before"
    shutil.rmtree(folder, ignore_errors=True)
    return (
        f"changed behind an unchanged size and time: {', '.join(dict.fromkeys(changed))}; what "
        "was known of it is thrown away"
    )


def _named(found: Sides) -> list[tuple[str, Part]]:
    train, held = found
    return [("train", train), *([("held", held)] if held else [])]


def _noted(folder: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        note: dict[str, Any] = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        return note
    return None


def _remember(folder: Path, found: Sides, said: Sequence[str]) -> None:
    if _noted(folder) is not None:
        return
    shutil.rmtree(folder, ignore_errors=True)  # what a damaged one left
    note: dict[str, Any] = {"said": list(said), "train": None, "held": None}
    for name, part in _named(found):
        note[name] = {
            "rows": len(part.records),
            "sources": part.sources,
            "fingerprint": part.fingerprint,
            "skipped": part.skipped,
            "formats": part.formats,
            "cleaned": part.cleaned,
            "mixed": part.mixed,
            "augmented": part.augmented,
        }
    held = found[1]
    with cache.made(folder) as whole:
        (whole / _NOTE).write_text(json.dumps(note, default=dict), encoding="utf-8")
        if held is not None and not keep(whole / _HELD, held.records):
            (whole / _HELD).unlink()


def _known(folder: Path, note: dict[str, Any], read: Callable[[], Sides]) -> Sides:
    """What a note says, its records to be read when they are wanted."""

    def again(name: str) -> Sequence[Record]:
        found = dict(_named(read())).get(name)
        if found is None or found.fingerprint != note[name]["fingerprint"]:
            shutil.rmtree(folder, ignore_errors=True)
            raise ChangedError(
                "the rows are not those that were read before, though size and time are",
                ", ".join(note[name]["sources"]),
                "start again: what was known of the old ones is thrown away",
                "changed",
            )
        return found.records

    def held_out() -> Sequence[Record]:
        with suppress(OSError):
            return tuple(kept(folder / _HELD))
        return again("held")

    def part(name: str, records: Callable[[], Sequence[Record]]) -> Part:
        one = note[name]
        return Part(
            Later(one["rows"], records),
            one["fingerprint"],
            one["skipped"],
            tuple(one["formats"]),
            tuple(one["sources"]),
            cleaned=one["cleaned"],
            mixed=one["mixed"],
            augmented=one["augmented"],
        )

    train = part("train", lambda: again("train"))
    held = part("held", held_out) if note["held"] else None
    return train, held


def _silent(_line: str) -> None:
    """What was said once is not said again."""
