"""The parts of a recipe, each a mapping in the file: model, data, training, evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from luthier.core import kinds
from luthier.core.contracts import KindConfig
from luthier.core.recipe_sources import SOURCE_SCHEMA, Reading, SourceSpec, source
from luthier.core.recipe_values import SOURCES, comparable, name_source
from luthier.core.settings import Settings

_SHARE: JsonValue = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}


def _kind(folder: str) -> BeforeValidator:
    return BeforeValidator(lambda value: kinds.config(folder, value))


ObjectiveConfig = Annotated[SerializeAsAny[KindConfig], _kind("objectives")]
MethodConfig = Annotated[SerializeAsAny[KindConfig], _kind("methods")]
MetricConfig = Annotated[SerializeAsAny[KindConfig], _kind("metrics")]
CleanerConfig = Annotated[SerializeAsAny[KindConfig], _kind("data/cleaners")]
AugmenterConfig = Annotated[SerializeAsAny[KindConfig], _kind("data/augmenters")]
Count = Annotated[int, Field(ge=1)]
Rows = Annotated[int, Field(ge=2)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class TokenizerSpec(Settings):
    """A byte-level BPE tokenizer to be trained on the training text."""

    vocab_size: int = Field(default=4096, ge=300)
    """Tokens, the 256 bytes and the special tokens included."""
    sample: int = Field(default=20_000, ge=1)
    """Documents to learn the merges from, drawn evenly."""


class ModelSpec(Settings):
    """Which model to start from; in a recipe a plain string is ``name``."""

    name: str | None = Field(default=None, min_length=1)
    """``builtin:nano``, a hub id, a folder, a finished run or a peft adapter."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Never by default."""
    offline: bool = False
    """Refuse to ask the hub, even for a hub id; only what is cached is used."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout of every layer of a pretrained model; its own if unset."""
    new_tokens: str | tuple[str, ...] = ()
    """Tokens that a pretrained model gets and learns, ``["<tool>", "</tool>"]``, or a file with
    one on each line; each starts from the mean of the pieces that spelt it."""
    layers: Count | tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Start from some of a pretrained model's layers: ``[0, 3, 5]``, or how many, drawn evenly."""
    architecture: str | None = Field(default=None, min_length=1)
    """A transformers architecture (``llama``, ``gpt2`` …) to start from scratch."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of that architecture (``hidden_size``, ``num_hidden_layers`` …)."""
    tokenizer: str | TokenizerSpec | None = None
    """From scratch: a tokenizer to take (hub id, folder) or ``{vocab_size: 4096}`` to train."""

    @model_validator(mode="after")
    def _one_start(self) -> ModelSpec:
        if (self.name is None) == (self.architecture is None):
            both = "not both" if self.name is not None else "this says neither"
            raise ValueError(
                f"takes either 'name' (a pretrained model) or 'architecture' (from scratch), {both}"
            )
        scratch = ("config", "tokenizer")
        pretrained = ("revision", "trust_remote_code", "dropout", "layers", "new_tokens")
        idle = scratch if self.name is not None else pretrained
        if unused := [name for name in idle if getattr(self, name) not in (None, False, {}, ())]:
            start = "a pretrained model" if self.name is not None else "a model from scratch"
            raise ValueError(f"'{unused[0]}' has no meaning for {start}")
        return self

    @field_validator("layers")
    @classmethod
    def _ascending(cls, value: Any) -> Any:
        if isinstance(value, tuple) and (not value or list(value) != sorted({*value})):
            raise ValueError("must name layers in ascending order, each once, as [0, 3, 5]")
        return value


class SubsetSpec(Settings):
    """Which rows a subset is drawn to stand for; in a recipe a plain number is ``rows``."""

    rows: Rows
    """Training rows to keep."""
    by: Literal["classes", "clusters"] = "classes"
    """What keeps its share: each class (or source), or each cluster of like texts."""
    model: str | None = Field(default=None, min_length=1)
    """An encoder whose vectors are clustered: a folder or a hub id. Weighted words if unset."""
    clusters: int | None = Field(default=None, ge=2)
    """How many; half of ``rows`` if unset, 512 at most."""

    @model_validator(mode="after")
    def _used(self) -> SubsetSpec:
        if self.by != "clusters":
            for name in ("model", "clusters"):
                if getattr(self, name) is not None:
                    raise ValueError(f"'{name}' has no meaning without 'by: clusters'")
        return self


Subset = Annotated[
    SubsetSpec,
    BeforeValidator(
        lambda value: {"rows": value} if isinstance(value, int | str) else value,
        json_schema_input_type=Rows | SubsetSpec,
    ),
]


class DataSpec(Settings):
    """Where rows come from and how they become examples."""

    train: Any = Field(
        default=None, json_schema_extra={"anyOf": [*SOURCE_SCHEMA, {"type": "null"}]}
    )
    """A file, a list of files, a hub id, or rows in memory (list of dicts, frame, Dataset)."""
    mixture: tuple[SourceSpec, ...] | None = Field(default=None, min_length=1)
    """In place of ``train``: several sources, each with its share of an epoch and, where it needs
    them, its own format, columns and limit: ``[{source: shop.jsonl, weight: 2}, {source: …}]``."""
    temperature: float = Field(default=1.0, ge=1)
    """Of a mixture: a source's share goes by its examples to the power of 1/temperature, so that
    a higher one draws more of small sources (T5, Raffel et al. 2020, arXiv 1910.10683)."""
    epoch_length: Count | Literal["total", "all_exhausted", "first_exhausted"] = "total"
    """Examples that an epoch of a mixture draws: as many as there are (total), until every
    source is seen whole (all_exhausted), until the first one is (first_exhausted), or a number."""
    balance: Literal["oversample", "undersample"] | None = None
    """Draw as many examples of each class: as many as the largest has, those of the others
    repeated, or as the smallest has, others each epoch."""
    validation: Any = Field(
        default=0.1,
        json_schema_extra={"anyOf": [_SHARE, *SOURCE_SCHEMA, {"type": "null"}]},
    )
    """A share of the training rows, or a source of its own; 0 for none."""
    clean: tuple[CleanerConfig, ...] = ()
    """Steps that mend the rows, in order, each counted: ``[whitespace, html, duplicates]``."""
    subset: Subset | None = None
    """Train on so many rows that stand for all of them (each class its share), for a first try;
    ``{rows: 500, by: clusters}`` has each kind of text in them."""
    augment: tuple[AugmenterConfig, ...] = ()
    """Steps that make further training rows of the training rows:
    ``[{kind: noise, copies: 2}]``."""
    augment_share: float = Field(default=1.0, gt=0)
    """Made rows at most, as a share of the real training rows."""
    group: str | None = Field(default=None, min_length=1)
    """Rows that a held-out share must not divide, beside those that say nearly the same, which it
    never does where it can: those of one value in a column (a customer, a document).
    ``near_duplicates`` insists where nothing else could be held out, ``none`` divides all but equal
    rows."""
    format: str | dict[str, JsonValue] = "auto"
    """A format's name, a user's own by import path, or ``auto``, which says what it found; with
    settings ``{kind: oasst, paths: best}``."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Renames: the format's field to the data's column, as ``{prompt: question}``."""
    template: str | None = None
    """A prompt template (``"Q: {prompt}\\nA:"``) or a Jinja chat template; the model's own where
    it has one."""
    system: Literal["keep", "merge", "drop"] = "keep"
    """Where a template takes no system turn: refuse (keep), put it before the first user turn
    (merge), or leave it out and count (drop)."""
    thinking: Literal["keep", "mask", "drop"] = "keep"
    """What an assistant thinks before it answers (``<think>…</think>``): learn it (keep), have it
    read and not learned (mask), or leave it out and count (drop)."""
    max_length: int | None = Field(default=None, ge=8)
    """Longest example in tokens; the model's context if unset."""
    overlong: Literal["auto", "window", "refuse", "left", "right", "drop"] = "auto"
    """What becomes of longer ones: consecutive windows, an error, a cut, or out. ``auto``:
    windows for raw text, an error elsewhere."""
    check: Literal["refuse", "warn", "off"] = "refuse"
    """What `luthier data check` looks for is looked for before training: errors end it (refuse),
    are said (warn), or nothing is looked for (off)."""
    malformed: Literal["refuse", "skip"] = "refuse"
    """A row that cannot be read: an error with its line, or skipped and counted."""
    limit: int | None = Field(default=None, ge=1)
    """Take at most so many rows of each source, for a try."""
    workers: Count | Literal["auto"] = "auto"
    """Processes that check rows and put them into tokens, once there are many; ``auto`` takes as
    many as pay off. What they make is the same however many there are."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds to wait for a source that gives nothing (a pipe, a disk of the network, a hub's
    stream) before it is named in an error."""

    @field_validator("train")
    @classmethod
    def _source(cls, value: Any) -> Any:
        return source(value)

    @field_validator("validation")
    @classmethod
    def _share(cls, value: Any) -> Any:
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d*\.?\d+", value):
            value = float(value)  # a variable's value
        if isinstance(value, bool):
            raise ValueError("must be a share of the rows, or a file")
        if isinstance(value, int | float):
            if not 0 <= value < 1:
                raise ValueError("must be a share of the rows: at least 0 and less than 1")
            return float(value)
        return source(value)

    @field_validator("clean", "augment", mode="before")
    @classmethod
    def _one_step(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("format")
    @classmethod
    def _known(cls, value: str | dict[str, JsonValue]) -> str | dict[str, JsonValue]:
        if value != "auto":
            kinds.config("data/formats", value)
        return value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DataSpec):
            return NotImplemented
        mine, theirs = (comparable({"data": dict(each)}) for each in (self, other))
        return bool(mine == theirs)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, name_source(value) if name in SOURCES else value

    def readings(self) -> tuple[Reading, ...]:
        """How what ``train`` or ``mixture`` names is read, source by source."""
        if self.mixture is None:
            return () if self.train is None else (self.reading(self.train),)
        return tuple(
            Reading(
                entry.source,
                self.format if entry.format is None else entry.format,
                self.columns if entry.columns is None else entry.columns,
                self.limit if entry.limit is None else entry.limit,
                entry.called(number),
                entry.task,
            )
            for number, entry in enumerate(self.mixture)
        )

    def reading(self, value: Any) -> Reading:
        """How a source beside the mixture is read."""
        return Reading(value, self.format, self.columns, self.limit)

    def formats(self) -> Iterator[tuple[tuple[str | int, ...], str | dict[str, JsonValue]]]:
        """Every format that is named, and its path in this part."""
        yield ("format",), self.format
        for number, entry in enumerate(self.mixture or ()):
            if entry.format is not None:
                yield ("mixture", number, "format"), entry.format


class EarlyStopping(Settings):
    """Stop when a validation figure no longer improves."""

    patience: int = Field(default=3, ge=1)
    """Evaluations without an improvement."""
    min_delta: float = Field(default=0.0, ge=0)
    """What counts as one."""
    metric: str = "loss"
    """``loss``, or a loss term's name."""


class TrainingSpec(Settings):
    """How to train. Every default is a good one."""

    epochs: float = Field(default=3.0, gt=0)
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many steps, whatever ``epochs`` says."""
    batch_size: int = Field(default=16, ge=1)
    """Examples in one optimizer step, over all devices."""
    token_budget: Count | Literal["auto"] = "auto"  # noqa: S105 - no password
    """Tokens in one micro-batch; ``auto`` asks the memory planner."""
    optimizer: Literal["adamw", "adamw_8bit", "adamw_8bit_paged", "sgd"] = "adamw"
    """AdamW (Loshchilov & Hutter 2019) or SGD with momentum. On NVIDIA GPUs AdamW may keep its
    moments in 8 bits, and page them out to main memory where the GPU's is full."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """AdamW's decay rates; SGD's momentum is the first."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Peak rate; ``auto`` takes the method's own (2e-4 for LoRA, 2e-5 for full)."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer's rate as a share of the rate of the layer above it; the topmost learns at the
    full rate, the embeddings at the lowest."""
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Factors on the learning rate by name, the last that matches counts: ``{head: 5,
    embeddings: 0.1, "layers.1*": 0.5}``; patterns match whole parts of parameters' names."""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "cosine"
    """What follows the warm-up; wsd is warmup-stable-decay over the last fifth."""
    min_rate: float = Field(default=0.0, ge=0, le=1)
    """Where the schedule ends, as a share of the peak."""
    warmup: float = Field(default=0.03, ge=0)
    """A share of the steps if below 1, else a number of steps."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay of matrices; biases and norms are spared."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Bound on the global gradient norm; null for none."""
    neftune_alpha: float | None = Field(default=None, gt=0)
    """Noise on the embeddings while training (NEFTune; 5 is its paper's); none if unset."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights (0.999), which is evaluated and becomes the result;
    none if unset."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the forward and backward pass; weights stay float32. ``auto`` probes."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Order, dropout, new weights."""
    log_every: int = Field(default=10, ge=1)
    """Steps between log lines."""
    evaluate_every: Count | Literal["auto"] = "auto"
    """Steps between validation losses; ``auto`` is ten times a run, at least each epoch."""
    save_every: Count | Literal["auto"] = "auto"
    """Steps between checkpoints; ``auto`` is with every validation."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept: the newest, and the best beside them."""
    early_stopping: EarlyStopping | None = None
    """Off unless given, as ``{patience: 3}``."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """torch.compile the decoder blocks; pays off on long runs only."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; the physical cores if unset."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] | Literal["auto"] = "auto"
    """Beside events.jsonl; ``auto`` is TensorBoard where it is installed."""

    @field_validator("trackers", mode="before")
    @classmethod
    def _one_tracker(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) and value != "auto" else value
