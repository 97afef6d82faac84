"""Low-rank adaptation: a trained product ``B A`` of rank r beside frozen matrices.

``W x + (alpha / r) B A x`` (Hu et al. 2021, arXiv 2106.09685), through peft, so that the adapter
loads wherever peft's format is read. Options: rank-stabilised scaling ``alpha / sqrt(r)``
(Kalajdzievski 2023, arXiv 2312.03732), weight decomposition (DoRA, Liu et al. 2024,
arXiv 2402.09353), a faster ``B`` (LoRA+, Hayou et al. 2024, arXiv 2402.12354), and a start from
the matrix itself (PiSSA, see :mod:`luthier.methods._lora_starts`).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from luthier.core.contracts import KindConfig
from luthier.core.errors import RecipeError
from luthier.methods import _lora_starts as starts
from luthier.methods._lora_targets import attention_layers, check_patterns, leaves
from luthier.methods._low_rank import fuse
from luthier.methods._peft import PeftMethod, new_rows, task, transposed, weightless
from luthier.ops.quantized import peft

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


class Method(PeftMethod):
    """See the module."""

    default_rate: ClassVar[float] = 2e-4
    trained = ("lora_",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._identity = config.start == "zero"
        #: A0 and B0 of every matrix, where the adapter does not start as nothing.
        self._begun: dict[str, starts.Pair] = {}

    def _fresh(self, model: nn.Module) -> nn.Module:
        full = self._in_full(model)
        adapted = self._adapted(model)
        if self.config.start != "zero" and not weightless(model):
            self._begun = starts.begin(adapted, full)
        return adapted

    def _in_full(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The matrices that a start needs beside those that the model is left with."""
        return None

    def _adapted(self, model: nn.Module) -> nn.Module:
        try:
            with warnings.catch_warnings():  # of patterns that mean nothing: refused below
                warnings.filterwarnings("ignore", message=r"The following \w+_pattern keys")
                adapted = super()._fresh(model)
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
        groups = super().param_groups(model)
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

    def save(self, model: nn.Module, folder: Path) -> None:
        """The adapter in peft's own format, right on the original base whatever its start."""
        super().save(model, folder)
        if self._begun:
            starts.widen(folder, self._begun, rslora=self.config.rslora)

    def _loaded(self, model: nn.Module, folder: Path) -> nn.Module:
        if self.config.start == "zero":
            return super()._loaded(model, folder)
        tensors, self._begun = starts.narrow(folder)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        made = self._adapted(model)
        starts.load_into(made, tensors)
        if self.config.start == "pissa":
            starts.take_out(made, self._begun)
        return made

    def peft_config(self, model: nn.Module) -> Any:
        """Of peft's LoRA; the rows of new tokens are trained with it."""
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
            fan_in_fan_out=any(map(transposed, model.modules())),
            use_rslora=c.rslora,
            use_dora=c.dora,
            trainable_token_indices=new_rows(model),
            **task(model),
        )

    def differing(self, model: Any, old: Any, wanted: Any) -> list[str]:
        """Rank, scale, targets and options; an adapter that is continued has started."""
        found = [
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
            found.append(f"start zero (it has started) / {self.config.start} (the recipe)")
        return found

    def _continue(self, model: Any) -> None:
        from peft.tuners.lora import LoraLayer

        super()._continue(model)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                chosen = nn.Dropout(self.config.dropout) if self.config.dropout else nn.Identity()
                module.lora_dropout[model.active_adapter] = chosen
        fuse(model)
