"""The run folder: the one place that knows its file names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.core.errors import UserError

_CHECKPOINT = re.compile(r"step-(\d{6,})")
_DAMAGED = "damaged-"
_TEMPORARY = re.compile(r"\.(.+)\.\d+")


@dataclass(frozen=True)
class RunDir:
    """A folder with everything that one training produced; see docs/design.md for its files."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe, every default written out."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """Versions, device, threads, git commit, data fingerprints, the probe's choices."""
        return self.path / "environment.json"

    @property
    def lock(self) -> Path:
        """Held by the process that writes to the run, while it does."""
        return self.path / ".lock"

    @property
    def events(self) -> Path:
        """One JSON object a line: what happened at each logged step."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The result; loads with plain transformers and peft."""
        return self.path / "model"

    @property
    def evaluation(self) -> Path:
        """Before and after, with intervals and p-values."""
        return self.path / "evaluation.json"

    @property
    def scores(self) -> Path:
        """Per-example scores of both models."""
        return self.path / "scores.jsonl"

    @property
    def samples(self) -> Path:
        """The same prompts answered before and after."""
        return self.path / "samples.jsonl"

    @property
    def report(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def tensorboard(self) -> Path:
        """Event files of TensorBoard, where it is installed."""
        return self.path / "tensorboard"

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint after ``step`` steps."""
        return self.checkpoints / f"step-{step:06d}"

    def saved(self) -> list[tuple[int, Path]]:
        """``(step, folder)`` of every checkpoint, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        found = ((_CHECKPOINT.fullmatch(p.name), p) for p in self.checkpoints.iterdir())
        return sorted((int(m.group(1)), p) for m, p in found if m and p.is_dir())

    def set_aside(self) -> list[Path]:
        """Damaged checkpoints, renamed so that none is taken for a sound one."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(p for p in self.checkpoints.iterdir() if p.name.startswith(_DAMAGED))

    def aside(self, checkpoint: Path) -> Path:
        """A free name for a damaged checkpoint: ``damaged-step-000400``, ``…-2``, ``…-3``."""
        first = checkpoint.with_name(f"{_DAMAGED}{checkpoint.name}")
        number, free = 1, first
        while free.exists():
            number += 1
            free = first.with_name(f"{first.name}-{number}")
        return free

    def leftovers(self) -> list[Path]:
        """What processes that were killed while they wrote left here; see :func:`write_text`."""
        own = {p.name for p in self._files}
        found = ((_TEMPORARY.fullmatch(p.name), p) for p in self.path.iterdir())
        return [p for m, p in found if m and m[1] in own]

    @property
    def _files(self) -> list[Path]:
        return [
            self.recipe,
            self.environment,
            self.events,
            self.evaluation,
            self.scores,
            self.samples,
            self.report,
            self.card,
            self.stage_list,
        ]

    @property
    def stage_list(self) -> Path:
        """Of a run in stages, their names in order; from its first moment on."""
        return self.path / "stages.json"

    @property
    def stages(self) -> list[RunDir]:
        """The runs that a run in stages is made of, in order; empty for any other."""
        if not self.stage_list.is_file():
            return []
        names = json.loads(self.stage_list.read_text(encoding="utf-8"))["stages"]
        return [RunDir(self.path / Path(name).name) for name in names]

    @property
    def finished(self) -> bool:
        """Whether the run wrote its result, or each of its stages did; the card comes last."""
        stages = self.stages
        done = all(stage.finished for stage in stages) if stages else self.model.is_dir()
        return done and self.card.is_file()

    @property
    def is_run(self) -> bool:
        """Whether the folder is a run at all."""
        return self.recipe.is_file() and self.environment.is_file()


def open_run(path: str | os.PathLike[str]) -> RunDir:
    """An existing run.

    Raises:
        UserError: the folder is missing or is not a run.
    """
    run = RunDir(Path(path))
    if not run.path.is_dir():
        raise UserError(f"no folder '{path}'", cure="name a folder that `luthier train` made")
    if not run.is_run:
        raise UserError(f"'{path}' is not a run: it has no recipe.yaml and environment.json")
    return run


def write_stage_list(folder: RunDir, stages: Iterable[RunDir]) -> None:
    """Makes ``folder`` a run in stages."""
    write_json(folder.stage_list, {"stages": [stage.path.name for stage in stages]})


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of either."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text through a temporary file and a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Reads JSON lines; nothing where the file does not exist.

    A last line that was cut off, by a kill while it was written, is left out.

    Raises:
        UserError: another line is not JSON.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError:
                if line.endswith("\n"):
                    raise UserError("is not JSON", f"{path}:{number}", code="damaged") from None
