"""Low-rank adaptation: a trained product ``B A`` of rank r beside frozen matrices.

``W x + (alpha / r) B A x`` (Hu et al. 2021, arXiv 2106.09685), through peft, so that the adapter
loads wherever peft's format is read. Options: rank-stabilised scaling ``alpha / sqrt(r)``
(Kalajdzievski 2023, arXiv 2312.03732), weight decomposition (DoRA, Liu et al. 2024,
arXiv 2402.09353), a faster ``B`` (LoRA+, Hayou et al. 2024, arXiv 2402.12354), and a start from
the matrix itself (PiSSA, see :mod:`luthier.methods._lora_starts`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from luthier.core.contracts import KindConfig, Objective
from luthier.core.errors import RecipeError
from luthier.methods import _lora_starts as starts
from luthier.methods._lora_targets import attention_layers, check_patterns, is_matrix, leaves
from luthier.methods._low_rank import fuse
from luthier.methods._snapshot import Snapshot, groups_by_decay, head_names
from luthier.ops.quantized import matrix_of as matrix_of
from luthier.ops.quantized import peft

#: Part of the name of the trained rows of new tokens.
ROWS = "trainable_tokens_delta"

Rank = Annotated[int, Field(ge=1)]
Alpha = Annotated[float, Field(gt=0)]


class Config(KindConfig):
    """Settings of LoRA."""

    kind: str = "lora"
    rank: Rank = 16
    """Rank r of the update."""
    alpha: Alpha | None = None
    """Scale of the update; twice the rank if unset."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    targets: str | tuple[str, ...] = "all-linear"
    """``all-linear``, ``attention``, a list of module names, or a regular expression."""
    rank_pattern: dict[str, Rank] = Field(default_factory=dict)
    """Ranks of single matrices by the end of their name, ``{q_proj: 32}``; alpha stays."""
    alpha_pattern: dict[str, Alpha] = Field(default_factory=dict)
    """Alphas of single matrices, likewise."""
    rslora: bool = False
    """Rank-stabilised scaling."""
    dora: bool = False
    """Weight-decomposed update."""
    plus_ratio: float | None = Field(default=None, ge=1)
    """LoRA+: B's learning rate over A's (16 in the paper); the same if unset."""
    start: Literal["zero", "pissa"] = "zero"
    """What the adapter starts as: nothing, or the matrix's largest singular values (PiSSA)."""

    @model_validator(mode="after")
    def _one_start(self) -> Config:
        if self.dora and self.start != "zero":
            raise ValueError(f"'start: {self.start}' and 'dora' both rewrite the matrix, take one")
        return self


class Method:
    """See the module."""

    default_rate: ClassVar[float] = 2e-4

    def __init__(self, config: Config) -> None:
        self.config = config
        self._start: Snapshot | None = None
        self._identity = config.start == "zero"
        #: A0 and B0 of every matrix, where the adapter does not start as nothing.
        self._begun: dict[str, starts.Pair] = {}

    def supports(self, objective: Objective) -> str | None:
        """Every objective that trains a trunk."""
        return None

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model with adapters on its target matrices, and nothing else but a head trainable.

        Raises:
            RecipeError: no module matches, or the run continues an adapter of another shape.
        """
        inner = _inner(model)
        if isinstance(inner, peft().PeftModel):
            self._continue(inner)
        else:
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            full = self._in_full(inner)
            inner = self._adapted(inner)
            if self.config.start != "zero" and not weightless(model):
                self._begun = starts.begin(inner, full)
        if not hasattr(model, "trunk"):
            return inner  # type: ignore[no-any-return]
        model.trunk = inner
        for name in head_names(model):
            model.get_submodule(name).requires_grad_(True)
        return model

    def _in_full(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The matrices that a start needs beside those that the model is left with."""
        return None

    def _adapted(self, model: nn.Module) -> nn.Module:
        try:
            with warnings.catch_warnings():  # of patterns that mean nothing: refused below
                warnings.filterwarnings("ignore", message=r"The following \w+_pattern keys")
                adapted: nn.Module = peft().get_peft_model(model, self._peft_config(model))
        except ValueError as error:
            names = sorted(
                {n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
            )
            raise RecipeError(
                f"method.targets {self.config.targets!r} match no matrix of this model",
                cure=f"its linear layers are {', '.join(names)}",
            ) from error
        c = self.config
        check_patterns(adapted, {"rank_pattern": c.rank_pattern, "alpha_pattern": c.alpha_pattern})
        fuse(adapted)
        return adapted

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One group that decays, one that does not (DoRA's magnitudes); LoRA+ divides them."""
        groups: list[dict[str, Any]] = groups_by_decay(model)
        if self.config.plus_ratio is None:
            return groups
        divided = []
        for group in groups:
            pairs = list(zip(group["names"], group["params"], strict=True))
            for fast in (False, True):
                chosen = [(n, p) for n, p in pairs if (".lora_B." in n) == fast]
                if chosen:
                    names, params = zip(*chosen, strict=True)
                    rate = self.config.plus_ratio if fast else 1.0
                    divided.append(
                        {**group, "names": list(names), "params": list(params), "rate": rate}
                    )
        return divided

    def frozen_depth(self, model: nn.Module) -> int:
        """Adapters sit in every layer, so no trunk stays as it was."""
        return 0

    def keep_start(self, model: nn.Module) -> None:
        """Keeps what was trained at step 0 where switching the adapter off is not the same."""
        self._start = None if self._identity and not head_names(model) else Snapshot(model)

    @contextmanager
    def reference(self, model: nn.Module) -> Iterator[None]:
        """The base where the adapter started as the identity, else the adapter of step 0."""
        if self._start is not None:
            with self._start.opened(model):
                yield
        else:
            with _inner(model).disable_adapter():
                yield

    def save(self, model: nn.Module, folder: Path) -> None:
        """The adapter in peft's own format, right on the original base whatever its start."""
        # "auto" would ask the hub whether the embeddings were resized; they never are.
        save = model.save_pretrained
        save(folder, safe_serialization=True, save_embedding_layers=False)  # type: ignore[operator]
        if self._begun:
            starts.widen(folder, self._begun, rslora=self.config.rslora)

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved adapter, trainable, on a base model."""
        if self.config.start != "zero":
            loaded: Any = self._begun_again(_inner(model), folder)
        else:
            loaded = peft().PeftModel.from_pretrained(_inner(model), str(folder), is_trainable=True)
            fuse(loaded)
        if not hasattr(model, "trunk"):
            return loaded  # type: ignore[no-any-return]
        model.trunk = loaded
        model.load_head(folder)  # type: ignore[operator]
        return model

    def _begun_again(self, model: nn.Module, folder: Path) -> nn.Module:
        tensors, self._begun = starts.narrow(folder)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        made = self._adapted(model)
        starts.load_into(made, tensors)
        if self.config.start == "pissa":
            starts.take_out(made, self._begun)
        return made

    def merge(self, model: nn.Module) -> nn.Module:
        """The base with the update added to its matrices."""
        merged: nn.Module = _inner(model).merge_and_unload(safe_merge=True)
        if not hasattr(model, "trunk"):
            return merged
        model.trunk = merged
        return model

    def _peft_config(self, model: nn.Module) -> Any:
        c = self.config
        targets: Any = list(c.targets) if isinstance(c.targets, tuple) else c.targets
        if targets == "attention":
            targets = attention_layers(model)
        return peft().LoraConfig(
            r=c.rank,
            lora_alpha=c.alpha if c.alpha is not None else 2 * c.rank,
            lora_dropout=c.dropout,
            target_modules=targets,
            rank_pattern=dict(c.rank_pattern),
            alpha_pattern=dict(c.alpha_pattern),
            # GPT-2's matrices are stored transposed.
            fan_in_fan_out=any(_transposed(m) for m in model.modules()),
            use_rslora=c.rslora,
            use_dora=c.dora,
            trainable_token_indices=new_rows(model),
            **_task(model),
        )

    def _continue(self, model: Any) -> None:
        from peft.tuners.lora import LoraLayer

        old = model.peft_config[model.active_adapter]
        wanted = self._peft_config(model.get_base_model())
        differing = [
            f"{ours} {theirs_value} (the adapter) / {wanted_value} (the recipe)"
            for ours, theirs_value, wanted_value in (
                ("rank", old.r, wanted.r),
                ("alpha", old.lora_alpha, wanted.lora_alpha),
                ("rank_pattern", old.rank_pattern, wanted.rank_pattern),
                ("alpha_pattern", old.alpha_pattern, wanted.alpha_pattern),
                ("rslora", old.use_rslora, wanted.use_rslora),
                ("dora", old.use_dora, wanted.use_dora),
                ("targets", *leaves(model.get_base_model(), self.config.targets)),
            )
            if theirs_value != wanted_value
        ]
        if self.config.start != "zero":
            differing.append(f"start zero (it has started) / {self.config.start} (the recipe)")
        if differing:
            raise RecipeError(
                "the run continues an adapter of another shape: " + "; ".join(differing),
                cure="set method to the adapter's shape, or export it merged and start from that",
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name or "modules_to_save" in name or ROWS in name)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                chosen = nn.Dropout(self.config.dropout) if self.config.dropout else nn.Identity()
                module.lora_dropout[model.active_adapter] = chosen
        self._identity = False
        fuse(model)


def new_rows(model: nn.Module) -> dict[str, list[int]] | None:
    """Table -> its rows that are new tokens', which are trained beside the adapter.

    Raises:
        RecipeError: peft would lose the bias of the output head.
    """
    ids = list(getattr(model, "new_token_ids", ()))
    if not ids:
        return None
    base: Any = model
    head = getattr(base, "get_output_embeddings", lambda: None)()
    if getattr(head, "bias", None) is not None:
        raise RecipeError(
            "model.new_tokens: this model's output head has a bias, and an adapter for single "
            "rows of such a head does not exist",
            cure="method: full",
            code="pairing",
        )
    tables = [base.get_input_embeddings(), *([] if head is None else [head])]
    return {name: ids for name, part in model.named_modules() if any(part is t for t in tables)}


def _inner(model: nn.Module) -> Any:
    """What adapters sit on: a trunk that a head of ours stands on, else the model itself."""
    return getattr(model, "trunk", model) if head_names(model) else model


def weightless(model: nn.Module) -> bool:
    """Whether only the shape is there, as where a recipe is inspected."""
    return any(parameter.is_meta for parameter in model.parameters())


def _transposed(module: nn.Module) -> bool:
    """Whether the architecture stores this matrix transposed, though it may be packed by now."""
    return is_matrix(module) and getattr(module, "source_cls", type(module)).__name__ == "Conv1D"


def _task(model: nn.Module) -> dict[str, Any]:
    """What peft must know of the heads: its own kinds of models save and exclude them."""
    if heads := list(head_names(model)):
        return {"task_type": "SEQ_CLS", "modules_to_save": heads, "exclude_modules": heads}
    if hasattr(model, "prepare_inputs_for_generation"):
        return {"task_type": "CAUSAL_LM"}
    return {"task_type": "FEATURE_EXTRACTION"}
