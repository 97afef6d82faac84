"""What methods share that train a few parameters of peft's beside a frozen model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.core.errors import RecipeError
from luthier.methods._low_rank import fuse
from luthier.methods._snapshot import Snapshot, groups_by_decay, head_names
from luthier.ops import bottleneck
from luthier.ops.quantized import peft

#: Part of the name of the trained rows of new tokens.
ROWS = "trainable_tokens_delta"


class PeftMethod:
    """The part of :class:`luthier.core.contracts.Method` in which peft's methods agree."""

    #: Parts of the names of what is trained.
    trained: tuple[str, ...] = ()
    #: Whether the model computes the base's very numbers at step 0.
    identity = True

    def __init__(self, config: KindConfig) -> None:
        self.config: Any = config
        self._start: Snapshot | None = None
        self._identity = self.identity

    def supports(self, objective: Objective) -> str | None:
        """Every objective that trains a trunk."""
        return None

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model with the method's parameters, and nothing else but a head trainable.

        Raises:
            UserError: nothing to put them on, or the run continues another kind of adapter.
        """
        inner = inner_of(model)
        if isinstance(inner, peft().PeftModel):
            self._continue(inner)
        else:
            bottleneck.refuse(model)
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            inner = self._fresh(inner)
        if not hasattr(model, "trunk"):
            return inner  # type: ignore[no-any-return]
        model.trunk = inner
        for name in head_names(model):
            model.get_submodule(name).requires_grad_(True)
        return model

    def peft_config(self, model: nn.Module) -> Any:
        """What peft is asked for."""
        raise NotImplementedError

    def _fresh(self, model: nn.Module) -> nn.Module:
        made: nn.Module = peft().get_peft_model(model, self.peft_config(model))
        return made

    def _continue(self, model: Any) -> None:
        old = model.peft_config[model.active_adapter]
        wanted = self.peft_config(model.get_base_model())
        if old.peft_type != wanted.peft_type:
            raise RecipeError(
                f"the run continues an adapter of another kind, {old.peft_type.value}",
                cure="set method to the adapter's, or export it merged and start from that",
            )
        if differing := self.differing(model, old, wanted):
            raise RecipeError(
                "the run continues an adapter of another shape: " + "; ".join(differing),
                cure="set method to the adapter's shape, or export it merged and start from that",
            )
        parts = (*self.trained, "modules_to_save", ROWS)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in parts))
        self._identity = False

    def differing(self, model: Any, old: Any, wanted: Any) -> list[str]:
        """In what the adapter that is continued and the recipe differ, in words."""
        return []

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One group that decays, one that does not."""
        groups: list[dict[str, Any]] = groups_by_decay(model)
        return groups

    def frozen_depth(self, model: nn.Module) -> int:
        """Something of every layer is trained or read by what is, so no trunk stays as it was."""
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
            with inner_of(model).disable_adapter():
                yield

    def save(self, model: nn.Module, folder: Path) -> None:
        """The adapter in peft's own format."""
        # "auto" would ask the hub whether the embeddings were resized; their rows are kept apart.
        save = model.save_pretrained
        save(folder, safe_serialization=True, save_embedding_layers=False)  # type: ignore[operator]

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved adapter, trainable, on a base model."""
        loaded = self._loaded(inner_of(model), folder)
        if not hasattr(model, "trunk"):
            return loaded
        model.trunk = loaded
        model.load_head(folder)  # type: ignore[operator]
        return model

    def _loaded(self, model: nn.Module, folder: Path) -> nn.Module:
        made: nn.Module = peft().PeftModel.from_pretrained(model, str(folder), is_trainable=True)
        fuse(made)
        return made

    def merge(self, model: nn.Module) -> nn.Module:
        """The base with the update put into its matrices."""
        merged: nn.Module = inner_of(model).merge_and_unload(safe_merge=True)
        if not hasattr(model, "trunk"):
            return merged
        model.trunk = merged
        return model


def inner_of(model: nn.Module) -> Any:
    """What adapters sit on: a trunk that a head of ours stands on, else the model itself."""
    return getattr(model, "trunk", model) if head_names(model) else model


def task(model: nn.Module) -> dict[str, Any]:
    """What peft must know of the heads: its own kinds of models save and exclude them."""
    if heads := list(head_names(model)):
        kind = getattr(model, "adapter_task", "SEQ_CLS")
        return {"task_type": kind, "modules_to_save": heads, "exclude_modules": heads}
    if hasattr(model, "prepare_inputs_for_generation"):
        both = getattr(model.config, "is_encoder_decoder", False)
        return {"task_type": "SEQ_2_SEQ_LM" if both else "CAUSAL_LM"}
    return {"task_type": "FEATURE_EXTRACTION"}


def weightless(model: nn.Module) -> bool:
    """Whether only the shape is there, as where a recipe is inspected."""
    return any(parameter.is_meta for parameter in model.parameters())


def transposed(module: nn.Module) -> bool:
    """Whether the architecture stores this matrix transposed, though it may be packed by now."""
    return getattr(module, "source_cls", type(module)).__name__ == "Conv1D"


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
