"""Low-rank adaptation: a trained product ``B A`` of rank r beside frozen matrices.

``W x + (alpha / r) B A x`` (Hu et al. 2021, arXiv 2106.09685), through peft, so that the adapter
loads wherever peft's format is read. Options: rank-stabilised scaling ``alpha / sqrt(r)``
(Kalajdzievski 2023, arXiv 2312.03732) and weight decomposition (DoRA, Liu et al. 2024,
arXiv 2402.09353).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.core.errors import RecipeError
from luthier.methods._low_rank import fuse
from luthier.methods._snapshot import Snapshot, groups_by_decay, head_names
from luthier.ops import bottleneck


class Config(KindConfig):
    """Settings of LoRA."""

    kind: str = "lora"
    rank: int = Field(default=16, ge=1)
    """Rank r of the update."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale of the update; twice the rank if unset."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    targets: str | tuple[str, ...] = "all-linear"
    """``all-linear``, ``attention``, a list of module names, or a regular expression."""
    rslora: bool = False
    """Rank-stabilised scaling."""
    dora: bool = False
    """Weight-decomposed update."""


class Method:
    """See the module."""

    default_rate: ClassVar[float] = 2e-4

    def __init__(self, config: Config) -> None:
        self.config = config
        self._start: Snapshot | None = None
        self._identity = True

    def supports(self, objective: Objective) -> str | None:
        """Every objective that trains a trunk."""
        return None

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model with adapters on its target matrices, and nothing else but a head trainable.

        Raises:
            UserError: no module matches, or the run continues an adapter of another shape or kind.
        """
        from peft import PeftModel

        inner = _inner(model)
        if isinstance(inner, PeftModel):
            self._continue(inner)
        else:
            bottleneck.refuse(model)
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            inner = self._adapted(inner)
        if not hasattr(model, "trunk"):
            return inner  # type: ignore[no-any-return]
        model.trunk = inner
        for name in head_names(model):
            model.get_submodule(name).requires_grad_(True)
        return model

    def _adapted(self, model: nn.Module) -> nn.Module:
        from peft import get_peft_model

        try:
            adapted: nn.Module = get_peft_model(model, self._peft_config(model))
        except ValueError as error:
            names = sorted(
                {n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
            )
            raise RecipeError(
                f"method.targets {self.config.targets!r} match no matrix of this model",
                cure=f"its linear layers are {', '.join(names)}",
            ) from error
        fuse(adapted)
        return adapted

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One group that decays, one that does not (DoRA's magnitudes)."""
        return groups_by_decay(model)

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
        """The adapter in peft's own format."""
        # "auto" would ask the hub whether the embeddings were resized; they never are.
        save = model.save_pretrained
        save(folder, safe_serialization=True, save_embedding_layers=False)  # type: ignore[operator]

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved adapter, trainable, on a base model."""
        from peft import PeftModel

        loaded: Any = PeftModel.from_pretrained(_inner(model), str(folder), is_trainable=True)
        fuse(loaded)
        if not hasattr(model, "trunk"):
            return loaded  # type: ignore[no-any-return]
        model.trunk = loaded
        model.load_head(folder)  # type: ignore[operator]
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """The base with the update added to its matrices."""
        merged: nn.Module = _inner(model).merge_and_unload(safe_merge=True)
        if not hasattr(model, "trunk"):
            return merged
        model.trunk = merged
        return model

    def _peft_config(self, model: nn.Module) -> Any:
        from peft import LoraConfig

        c = self.config
        targets: Any = list(c.targets) if isinstance(c.targets, tuple) else c.targets
        if targets == "attention":
            targets = attention_layers(model)
        return LoraConfig(
            r=c.rank,
            lora_alpha=c.alpha if c.alpha is not None else 2 * c.rank,
            lora_dropout=c.dropout,
            target_modules=targets,
            # GPT-2's matrices are stored transposed.
            fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in model.modules()),
            use_rslora=c.rslora,
            use_dora=c.dora,
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
                ("rslora", old.use_rslora, wanted.use_rslora),
                ("dora", old.use_dora, wanted.use_dora),
                ("targets", *_leaves(model.get_base_model(), self.config.targets)),
            )
            if theirs_value != wanted_value
        ]
        if differing:
            raise RecipeError(
                "the run continues an adapter of another shape: " + "; ".join(differing),
                cure="set method to the adapter's shape, or export it merged and start from that",
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name or "modules_to_save" in name)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                chosen = nn.Dropout(self.config.dropout) if self.config.dropout else nn.Identity()
                module.lora_dropout[model.active_adapter] = chosen
        self._identity = False
        fuse(model)


def _inner(model: nn.Module) -> Any:
    """What adapters sit on: a trunk that a head of ours stands on, else the model itself."""
    return getattr(model, "trunk", model) if head_names(model) else model


def _task(model: nn.Module) -> dict[str, Any]:
    """What peft must know of the heads: its own kinds of models save and exclude them."""
    if heads := list(head_names(model)):
        task = getattr(model, "adapter_task", "SEQ_CLS")
        return {"task_type": task, "modules_to_save": heads, "exclude_modules": heads}
    if hasattr(model, "prepare_inputs_for_generation"):
        return {"task_type": "CAUSAL_LM"}
    return {"task_type": "FEATURE_EXTRACTION"}


def _leaves(base: nn.Module, targets: str | tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of the matrices that an adapter sits on, and of those that ``targets`` means."""
    from peft.tuners.lora import LoraLayer

    matrices = {
        name: isinstance(module, LoraLayer)
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | LoraLayer) or type(module).__name__ == "Conv1D"
        if ".lora_" not in name and not name.endswith(".base_layer")
    }
    head = getattr(base, "get_output_embeddings", lambda: None)()

    def meant(name: str) -> bool:
        if isinstance(targets, tuple):
            return any(name == t or name.endswith(f".{t}") for t in targets)
        if targets == "attention":
            return _in_attention(name)
        if targets == "all-linear":
            return base.get_submodule(name) is not head
        return re.fullmatch(targets, name) is not None

    def last_parts(names: Iterable[str]) -> list[str]:
        return sorted({name.rsplit(".", 1)[-1] for name in names})

    adapted = last_parts(name for name, yes in matrices.items() if yes)
    return adapted, last_parts(filter(meant, matrices))


def _in_attention(name: str) -> bool:
    return any(word in name.lower() for word in ("attn", "attention"))


def attention_layers(model: nn.Module) -> list[str]:
    """Names of the matrices inside attention blocks.

    The last part of their path, and the part before it where another block has a matrix of that
    name as well.
    """
    matrices = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
    elsewhere = {name.rsplit(".", 1)[-1] for name in matrices if not _in_attention(name)}
    return sorted(
        {
            ".".join(name.split(".")[-2:]) if leaf in elsewhere else leaf
            for name in filter(_in_attention, matrices)
            for leaf in [name.rsplit(".", 1)[-1]]
        }
    )
