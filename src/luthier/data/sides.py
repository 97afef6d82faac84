"""Both sides of a recipe's rows, without reading what was read before.

A start of the same recipe on the same files finds what an earlier one learned of them: each
side's content fingerprint (under which its tokens lie in the cache), its counts, and the
objective's settled settings. Its records are then read only once somebody asks for them.

What makes two starts the same is their *identity*: path, size, time of the last change and a
sample of the bytes of every file, the settings that decide records, the text of Luthier's own
code that does and of a user's own modules. Nothing else is looked at, so a file whose content
changed while size, time and sample stayed is taken for what it was; so is a file that a user's own
module reads by itself. ``verify`` reads everything, compares, and says what changed.

Where records are read after all, their content fingerprint must be the one noted. If it is not,
the note is thrown away and :class:`ChangedError` raised: whoever holds tokens of the old rows
begins anew. The held-out records themselves are kept beside the note, as measuring wants them
after hours of training in which the file may well have been edited.

Rows in memory, pipes and the hub have no such identity and are read at every start. So is a file
that was written within the last seconds, whose clock could hide a second change.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import random
import shutil
import stat
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

from luthier.core import cache, kinds
from luthier.core.contracts import KindConfig, Objective, Settling
from luthier.core.errors import DataError
from luthier.core.recipe import DataSpec
from luthier.core.records import Record
from luthier.data.kept import keep, kept
from luthier.data.parts import Part, read_parts
from luthier.data.patience import Watch, within
from luthier.data.sources import paths

Say = Callable[[str], None]

#: Settings that come into play once there are records.
_LATER = {"template", "system", "thinking", "max_length", "overlong", "timeout"}
#: Bytes of a sample, and samples between the first and the last.
_BLOCK, _BETWEEN = 4096, 8
#: Nanoseconds that a file must have rested: clocks of file systems are coarse.
_REST = 2_000_000_000
_NOTE, _HELD = "note.json", "held.jsonl"
_PACKAGE = Path(__file__).resolve().parent.parent
#: Beside ``data/``, the code that decides what a record is.
_CODE = ("core/records.py", "core/trees.py", "core/recipe_parts.py")


class ChangedError(DataError):
    """The rows are not those that were read before, though their files look the same."""


@dataclass(frozen=True)
class Sides:
    """A recipe's rows, and what they settle.

    Attributes:
        train: training records.
        held: held-out ones.
        objective: with everything known that it takes from the rows.
    """

    train: Part
    held: Part | None
    objective: Objective


class Later(Sequence[Record]):
    """Records that are read once somebody looks at one; their number is known before.

    Attributes:
        sources: names of the sources that they came from.
    """

    def __init__(
        self, count: int, sources: Sequence[str], read: Callable[[], Sequence[Record]]
    ) -> None:
        self.sources = tuple(sources)
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


def read_sides(
    spec: DataSpec,
    objective: Objective,
    seed: int,
    labels: Callable[[], Sequence[str]],
    say: Say,
    *,
    verify: bool = False,
) -> Sides:
    """Training and validation side, read where they are not known yet.

    Args:
        spec: the recipe's data part.
        objective: as the recipe has it.
        seed: of the split.
        labels: classes that the model to start from already has; asked where rows settle them.
        say: takes a line for the user.
        verify: read all content, and say what changed behind an unchanged size and time.

    Raises:
        DataError: as :func:`luthier.data.parts.read_parts`, or rows that settle nothing.
    """
    names = tuple(labels()) if isinstance(objective, Settling) else ()
    look = partial(_identity, spec, objective, seed, names)
    before = look()
    folder = None if before is None else cache.place("sides", before)
    note = None if folder is None else _noted(folder)
    read = partial(_read, spec, objective, seed, names)
    if folder is not None and note is not None and not verify:
        for line in note["said"]:
            say(line)
        return _known(folder, note, read)
    said: list[str] = []

    def both(line: str) -> None:
        said.append(line)
        say(line)

    found = read(both)
    if verify:
        say(_verdict(note, found, folder))
    if folder is not None and before == look():
        _remember(folder, found, said)
    return found


def _read(spec: DataSpec, objective: Objective, seed: int, names: Sequence[str], say: Say) -> Sides:
    train, held = read_parts(spec, objective, seed, say)
    if isinstance(objective, Settling):
        objective = objective.settled(train.records, names)
    return Sides(train, held, objective)


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
    return [("train", found.train), *([("held", found.held)] if found.held else [])]


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
        }
    note["objective"] = found.objective.config.model_dump(mode="json")
    with cache.made(folder) as whole:
        (whole / _NOTE).write_text(json.dumps(note, default=dict), encoding="utf-8")
        if found.held is not None and not keep(whole / _HELD, found.held.records):
            (whole / _HELD).unlink()


def _known(folder: Path, note: dict[str, Any], read: Callable[[Say], Sides]) -> Sides:
    """What a note says, its records to be read when they are wanted."""
    config = kinds.config("objectives", note["objective"])

    def again(name: str) -> Sequence[Record]:
        found = dict(_named(read(_silent))).get(name)
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
        later = Later(one["rows"], one["sources"], records)
        return Part(
            later, one["fingerprint"], one["skipped"], tuple(one["formats"]), {}, one["cleaned"]
        )

    train = part("train", lambda: again("train"))
    held = part("held", held_out) if note["held"] else None
    return Sides(train, held, kinds.build("objectives", config))


def _identity(spec: DataSpec, objective: Objective, seed: int, names: Sequence[str]) -> str | None:
    """Hash of all that decides the records, without their content; ``None`` where that is no file.

    A file that changed within the last seconds counts as none.
    """
    sources = [
        s for s in (spec.train, spec.validation) if s is not None and not isinstance(s, int | float)
    ]
    found = [paths(source) for source in sources]
    if None in found:
        return None
    files = [path for each in found for path in each or ()]

    def work(watch: Watch) -> list[list[Any] | None]:
        return [watch.asked(partial(_look, path)) for path in files]

    looks = within(spec.timeout, ", ".join(map(str, files[:3])), work)
    if None in looks:
        return None
    return cache.key(
        looks,
        spec.model_dump(mode="json", exclude=_LATER),
        type(objective.config).__module__,
        objective.config.model_dump(mode="json"),
        [kind.__name__ for kind in objective.records],
        seed,
        list(names),
        sys.version,
        _code(objective),
        _own_code(spec, objective),
    )


def _look(path: Path) -> list[Any] | None:
    """What tells a file from another: a sample of its bytes, its place, size and time."""
    now = time.time_ns()
    with suppress(OSError):
        seen = path.stat()
        if not stat.S_ISREG(seen.st_mode) or now - seen.st_mtime_ns < _REST:
            return None
        drawn = random.Random(seen.st_size)
        last = max(0, seen.st_size - _BLOCK)
        places = [0, *sorted(drawn.randint(0, last) for _ in range(_BETWEEN)), last]
        sample = hashlib.sha256()
        with path.open("rb") as stream:
            for place in places:
                stream.seek(place)
                sample.update(stream.read(_BLOCK))
        return [os.path.abspath(path), seen.st_size, seen.st_mtime_ns, sample.hexdigest()]
    return None


def _code(objective: Objective) -> str:
    """Luthier's own code that turns rows into records and settles an objective on them."""
    digest = hashlib.sha256()
    files = [*sorted((_PACKAGE / "data").rglob("*.py")), *(_PACKAGE / name for name in _CODE)]
    for file in [*files, Path(inspect.getfile(type(objective)))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _own_code(spec: DataSpec, objective: Objective) -> str:
    """Where a user's own kind has a hand in it: all loaded code that is not installed."""
    configs = list(_configs([dict(spec), objective.config]))
    if spec.format != "auto":
        configs.append(kinds.config("data/formats", spec.format))
    own = {type(config).__module__.partition(".")[0] for config in configs} - {"luthier"}
    if not own:
        return ""
    installed = tuple({p for n, p in sysconfig.get_paths().items() if "lib" in n})
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        first = name.partition(".")[0]
        if not file.endswith(".py") or first in ("luthier", "__main__"):
            continue
        if first in own or not os.path.abspath(file).startswith(installed):
            with suppress(OSError):
                digest.update(name.encode() + Path(file).read_bytes())
    return digest.hexdigest()


def _configs(value: Any) -> Iterator[KindConfig]:
    """The settings of kinds that stand somewhere in a recipe's part."""
    if isinstance(value, KindConfig):
        yield value
        value = dict(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _configs(each)


def _silent(_line: str) -> None:
    """What was said once is not said again."""
