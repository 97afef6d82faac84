"""Exports: a finished run in another shape, proved to be the same model before it is kept.

One file a target. A target's module has ``TOLERANCE`` (the largest difference of logits allowed,
in float32), ``write(run, loaded, folder)``, and ``logits(folder, prompts)``, which opens what was
written as its future users will.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from luthier.core import kinds
from luthier.core.errors import RecipeError, UserError, nearest
from luthier.core.rundir import RunDir, open_run
from luthier.export import _golden
from luthier.models.load import load
from luthier.ops.quantized import holds_quantized

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        folder: where it lies.
        difference: largest absolute difference of its logits from the run's own model.
        prompts: golden prompts compared.
        tolerance: the difference that was allowed.
        rounding: where the run's base was quantised, how far the model that was trained is from
            the one that was written; ``None`` elsewhere.
    """

    folder: Path
    difference: float
    prompts: int
    tolerance: float
    rounding: _golden.Distance | None = None


def targets() -> tuple[str, ...]:
    """What a run can be exported to."""
    return kinds.names("export")


def export(
    run: str | os.PathLike[str],
    to: str,
    output: str | os.PathLike[str] | None = None,
    *,
    say: Say = print,
) -> Exported:
    """Writes a run's model in another shape and compares the two.

    Args:
        run: a finished run.
        to: one of :func:`targets`.
        output: a new or empty folder; ``RUN-TARGET`` beside the run if unset.
        say: takes a line for the user.

    Raises:
        UserError: no such run or target, a folder that is not empty, or a result whose logits
            differ by more than the target's tolerance, or whose answers are not those of the
            quantised model that was trained (nothing is left behind then).
    """
    if to not in targets():
        raise RecipeError(f"unknown export '{to}': {nearest(to, targets())}", "--to", code="kind")
    found = open_run(run)
    found = found.stages[-1] if found.stages else found
    if not found.finished:
        raise UserError(f"run '{run}' is not finished", cure=f"luthier train --resume {run}")
    folder = Path(output) if output is not None else _beside(Path(run), to)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RecipeError(f"'{folder}' is not empty", cure="choose another: --output DIR")
    target = import_module(f"luthier.export.{to}")
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        done = _proved(found, target, temporary, say)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(done, folder=folder)


def _proved(run: RunDir, target: Any, folder: Path, say: Say) -> Exported:
    """Writes the export and compares what it answers.

    Raises:
        UserError: it answers differently.
    """
    loaded = load(str(run.path))
    prompts = _golden.prompts(run, loaded)
    say(f"computing {len(prompts)} golden prompts with the run's own model")
    expected = [_golden.answer(loaded.model, prompt) for prompt in prompts]
    trained = None
    if holds_quantized(loaded.model.module):
        del loaded
        say("and with its adapter on the base in full, which the export is made from")
        trained, loaded = expected, load(str(run.path), quantize=False)
        expected = [_golden.answer(loaded.model, prompt) for prompt in prompts]
    say("writing the export")
    target.write(run, loaded, folder)
    del loaded
    say("opening what was written, and computing them again")
    difference = _golden.gap(expected, target.logits(folder, prompts))
    if not difference <= target.TOLERANCE:
        raise UserError(
            f"refused: on {len(prompts)} golden prompts the exported model's logits differ "
            f"by {difference:.2e} from the run's; {target.TOLERANCE:.0e} is allowed",
            cure="the run itself is untouched; please report this with its recipe.yaml",
            code="export-differs",
        )
    rounding = None if trained is None else _golden.checked(trained, expected)
    return Exported(folder, difference, len(prompts), target.TOLERANCE, rounding)


def _beside(run: Path, to: str) -> Path:
    path = run.resolve()
    return run.parent / f"{path.name}-{to}" if run.name else path.with_name(f"{path.name}-{to}")
