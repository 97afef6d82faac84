"""What makes a recipe's rows the same as in an earlier start, told without reading them.

Path, size, time of the last change and a sample of the bytes of every file; the settings that
decide records; the text of Luthier's own code that does, and of a user's own modules.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import random
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from luthier.core import cache, kinds
from luthier.core.contracts import KindConfig, Objective
from luthier.core.recipe import DataSpec
from luthier.data.patience import Watch, within
from luthier.data.sources import paths

#: Settings that come into play once there are records.
LATER = {"template", "system", "thinking", "max_length", "overlong", "timeout", "check", "workers"}
#: Settings of what an epoch draws; how the sources of a mixture are read counts by itself.
DRAWN = {"mixture", "temperature", "epoch_length", "balance"}
#: Bytes of a sample, and samples between the first and the last.
BLOCK, BETWEEN = 4096, 8
#: Nanoseconds that a file must have rested: clocks of file systems are coarse.
_REST = 2_000_000_000
_PACKAGE = Path(__file__).resolve().parent.parent
#: Beside ``data/``, the code that decides what a record is.
_CODE = ("core/records.py", "core/trees.py", "core/recipe_parts.py", "core/recipe_sources.py")


def identity(spec: DataSpec, objective: Objective, seed: int) -> str | None:
    """Hash of all that decides the records; ``None`` where their files cannot be told so.

    That is where there are none (rows in memory, pipes, the hub), and where one was written within
    the last seconds: the file system's clock could hide a second change.

    Args:
        spec: the recipe's data part.
        objective: as the recipe has it.
        seed: the run's.
    """
    readings = list(spec.readings())
    if spec.validation is not None and not isinstance(spec.validation, int | float):
        readings.append(spec.reading(spec.validation))
    found = [paths(each.source) for each in readings]
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
        spec.model_dump(mode="json", exclude=LATER | DRAWN),
        [vars(each) for each in readings],
        spec.mixture is not None,
        type(objective.config).__module__,
        objective.config.model_dump(mode="json"),
        [kind.__name__ for kind in objective.records],
        seed,
        sys.version,
        code(objective),
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
        last = max(0, seen.st_size - BLOCK)
        places = [0, *sorted(drawn.randint(0, last) for _ in range(BETWEEN)), last]
        sample = hashlib.sha256()
        with path.open("rb") as stream:
            for place in places:
                stream.seek(place)
                sample.update(stream.read(BLOCK))
        return [os.path.abspath(path), seen.st_size, seen.st_mtime_ns, sample.hexdigest()]
    return None


def code(objective: object) -> str:
    """Hash of Luthier's own code that turns rows into records, and of an objective's."""
    digest = hashlib.sha256()
    files = [*sorted((_PACKAGE / "data").rglob("*.py")), *(_PACKAGE / name for name in _CODE)]
    for file in [*files, Path(inspect.getfile(type(objective)))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _own_code(spec: DataSpec, objective: Objective) -> str:
    """Where a user's own kind has a hand in it: all loaded code that is not installed."""
    configs = list(_configs([dict(spec), objective.config]))
    named = [each for _, each in spec.formats() if each != "auto"]
    configs += [kinds.config("data/formats", each) for each in named]
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
