"""The keys of somebody else's configuration, taken one by one until none is left unsaid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Values that ask for nothing.
_NOTHING: tuple[Any, ...] = (None, False, "", "none", "None", [], {})
#: Names of schedules elsewhere, and here.
_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "warmup_stable_decay": "wsd",
}
#: Keys that Axolotl and LLaMA-Factory both took from transformers' Trainer.
SAME = {
    "trust_remote_code": "model.trust_remote_code",
    "max_steps": "training.max_steps",
    "learning_rate": "training.learning_rate",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.clip_norm",
    "seed": "training.seed",
    "logging_steps": "training.log_every",
    "eval_steps": "training.evaluate_every",
    "save_steps": "training.save_every",
    "save_total_limit": "training.keep",
    "output_dir": "output",
}
#: A number that YAML 1.1 takes for a word.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass
class Listed:
    """A data set that a configuration names.

    Attributes:
        files: its files, or its name on the hub.
        format: its format here; empty where it is recognised.
        columns: renames, the format's field to the data's column.
        share: of an epoch, where one is asked for.
    """

    files: list[str]
    format: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    share: float | None = None


class Sheet:
    """What is read of a configuration, and the recipe that it becomes.

    Attributes:
        recipe: so far.
        folder: where the configuration lies.
        without: ``key: value`` of what has no equal here.
        otherwise: what is done in another way here, in words.
        always: keys that need nothing here.
    """

    def __init__(self, values: Mapping[str, Any], folder: Path) -> None:
        self.recipe: dict[str, Any] = {}
        self.folder = folder
        self.without: list[str] = []
        self.otherwise: list[str] = []
        self.always: list[str] = []
        self._left = {key: _number(value) for key, value in values.items()}

    def take(self, key: str, default: Any = None) -> Any:
        """A key's value, which is then dealt with; the default where it asks for nothing."""
        value = self._left.pop(key, None)
        return default if value in _NOTHING else value

    def put(self, path: str, value: Any) -> None:
        """Writes into the recipe at ``a.b``."""
        *way, last = path.split(".")
        place = self.recipe
        for key in way:
            place = place.setdefault(key, {})
        place[last] = value

    def sources(self, listed: Sequence[Listed]) -> None:
        """Training rows: files that are read alike, or a mixture."""
        read = [(one.format, one.columns) for one in listed]
        if all(each == read[0] for each in read) and all(one.share is None for one in listed):
            files = [file for one in listed for file in one.files]
            self.put("data.train", files[0] if len(files) == 1 else files)
            self.reading(listed[0])
            return
        mixture = []
        for one in listed:
            entry: dict[str, Any] = {"source": one.files[0] if len(one.files) == 1 else one.files}
            known = {"share": one.share, "format": one.format, "columns": one.columns}
            mixture.append({**entry, **{key: value for key, value in known.items() if value}})
        self.put("data.mixture", mixture)

    def reading(self, one: Listed) -> None:
        """How rows are read that say nothing of their own."""
        if one.format:
            self.put("data.format", one.format)
        if one.columns:
            self.put("data.columns", one.columns)

    def moved(self, names: Mapping[str, str]) -> None:
        """Keys that mean here what they mean there, under another name."""
        for key, path in names.items():
            if (value := self.take(key)) is not None:
                self.put(path, value)

    def lacking(self, key: str, value: Any, why: str = "") -> None:
        """Something without an equal."""
        said = " ".join(str(value).split())
        self.without.append(
            f"{key}: {said[:60]}{' …' if len(said) > 60 else ''}{why and f' ({why})'}"
        )

    def needless(self, keys: Iterable[str]) -> None:
        """Keys that are always so here, or ask for nothing that there is to do."""
        for key in keys:
            if self.take(key) is not None:
                self.always.append(key)

    def batch(self, key: str, default: int) -> None:
        """The batch of a step from the micro-batch and the number of them."""
        micro, times = self.take(key, default), self.take("gradient_accumulation_steps", 1)
        if isinstance(micro, int) and isinstance(times, int):
            self.put("training.batch_size", micro * times)
            self.otherwise.append(
                f"batch_size is the whole step's: {micro} x {times}, times the devices you had"
            )
        else:
            self.lacking("gradient_accumulation_steps", times, "no number")

    def schedule(self, key: str) -> None:
        """The learning rate's course."""
        name = self.take(key)
        if name in _SCHEDULES:
            self.put("training.schedule", _SCHEDULES[name])
        elif name is not None:
            self.lacking(key, name, f"there are {', '.join(sorted(set(_SCHEDULES.values())))}")

    def warmup(self) -> None:
        """A number of steps wins over a share of them."""
        share, steps = self.take("warmup_ratio"), self.take("warmup_steps")
        if steps is not None or share is not None:
            self.put("training.warmup", share if steps is None else steps)

    def precision(self) -> None:
        """Sixteen bits of one kind or the other."""
        brain, half = self.take("bf16"), self.take("fp16")
        if brain == "auto":
            self.put("training.precision", "auto")
        elif brain is not None or half is not None:
            self.put("training.precision", "bfloat16" if brain is not None else "float16")

    def quantized(self, keys: Iterable[str]) -> None:
        """Weights in few bits."""
        for key in keys:
            if (value := self.take(key)) is not None:
                self.lacking(key, value, "weights stay in full precision")

    def rest(self) -> None:
        """Whatever nobody has taken."""
        for key in list(self._left):
            if (value := self.take(key)) is not None:
                self.lacking(key, value)


def _number(value: Any) -> Any:
    """``1e-4``, which YAML 1.1 reads as a word."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value
