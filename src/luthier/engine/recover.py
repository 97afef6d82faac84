"""Finds the checkpoint to continue from: leftovers cleared, damaged ones set aside by name.

What a killed process can leave behind, and what becomes of it:

=====================  =========================================================================
``.step-N.tmp``        a checkpoint that was being written: deleted, it never counted
``.step-N.old``        what ``step-N`` was when the save that replaces it was killed between its
                       two renames: put back; deleted where ``step-N`` stands already
``.step-N.gone``       a checkpoint that retention was deleting: deleted
``step-N``, damaged    renamed to ``damaged-step-N`` (``-2``, ``-3`` …), never deleted
``.NAME.PID``          a file of the run folder, half written: deleted
=====================  =========================================================================
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from luthier.core.errors import TrainingError
from luthier.core.rundir import RunDir
from luthier.engine import checkpoint

Say = Callable[[str], None]

_LEFT = re.compile(rf"\.(step-\d+)(\.tmp|{re.escape(checkpoint.OLD)}|{re.escape(checkpoint.GONE)})")


def newest_sound(run: RunDir, say: Say) -> Path | None:
    """The checkpoint to continue from; ``None`` where the run was stopped before its first.

    Args:
        run: the run folder; nobody else may be writing to it.
        say: takes a line for the user.

    Raises:
        TrainingError: there were checkpoints, and none of them is sound.
    """
    clear(run)
    for _, folder in reversed(run.saved()):
        try:
            checkpoint.verify(folder)
            checkpoint.read_state(folder)
        except TrainingError as error:
            name = run.aside(folder)
            folder.rename(name)
            say(f"{error.faults[0].message}; set aside as '{name}'")
        else:
            return folder
    if aside := run.set_aside():
        raise TrainingError(
            f"run '{run.path}' has no sound checkpoint left; damaged and set aside: "
            + ", ".join(path.name for path in aside),
            cure="start it afresh with another output",
            code="damaged",
        )
    return None


def clear(run: RunDir) -> None:
    """Ends what a killed save or deletion began, and takes half-written files away."""
    for path in run.leftovers():
        path.unlink(missing_ok=True)
    if not run.checkpoints.is_dir():
        return
    for left in sorted(run.checkpoints.iterdir()):
        match = _LEFT.fullmatch(left.name)
        if match is None:
            continue
        final = left.with_name(match[1])
        if match[2] == checkpoint.OLD and not final.exists():
            left.rename(final)
        else:
            shutil.rmtree(left)
