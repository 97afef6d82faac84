"""A causal model with a value head: what an answer will earn, guessed before each of its tokens.

``N`` tokens, ``R`` rows, ``H`` hidden size. The head stands on the model only while it is trained,
on the policy's trunk or on a copy of it as it was at step 0; what a run saves is the policy alone.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from luthier.core.records import Batch
from luthier.models.language_model import CausalModel
from luthier.ops.anatomy import unwrapped

#: The head's name on the transformers model, that of a trunk of its own, and its kind.
NAME, TRUNK, HEAD = "value_head", "value_trunk", "value"


class ValuedModel(CausalModel):
    """See :class:`luthier.core.contracts.HeadedModel`; :func:`attach` gives a module its head."""

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        """The last token of each of these segments: ``[R, H]``."""
        starts = torch.tensor(batch.segments.starts, device=hidden.device)
        lengths = torch.tensor(batch.segments.lengths, device=hidden.device)
        return hidden.index_select(0, (starts + lengths - 1)[segments])

    def valued(self, batch: Batch, hidden: Tensor) -> Tensor:
        """``[N, H]`` states that the value head reads; ``hidden`` are the policy's."""
        return _Critic(self.module).hidden(batch) if hasattr(self.base, TRUNK) else hidden

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        """Values of chosen states: ``[R, H] -> [R, 1]``."""
        assert head == HEAD, f"this model has no head '{head}'"
        layer: nn.Linear = getattr(self.base, NAME)
        found: Tensor = layer(rows.to(layer.weight.dtype))
        return found


class _Critic(CausalModel):
    """The same model on the value head's own trunk."""

    @property
    def trunk(self) -> nn.Module:
        """The copy."""
        found: nn.Module = getattr(self.base, TRUNK)
        return found


def attach(module: nn.Module, *, own_trunk: bool = False) -> ValuedModel:
    """The model with a fresh head, trained like everything that its method trains.

    It starts at zero: a critic that knows nothing expects nothing, and moves nothing below it.

    Args:
        module: prepared by its method.
        own_trunk: whether the head reads a copy of the trunk, of which the same parameters are
            trained, so that its loss does not move the policy.
    """
    base: Any = unwrapped(module)
    if own_trunk:
        other = copy.deepcopy(CausalModel(module).trunk)
        for part in other.modules():  # one config says how both attend
            if hasattr(part, "config"):
                part.config = base.config.get_text_config()
        setattr(base, TRUNK, other)
    first = next(parameter for parameter in base.parameters() if parameter.is_floating_point())
    layer = nn.Linear(base.config.get_text_config().hidden_size, 1, dtype=_wide(first.dtype))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    setattr(base, NAME, layer.to(first.device))
    return ValuedModel(module)


def detach(model: CausalModel) -> None:
    """Takes the head off, and its trunk, where there is one."""
    for name in (NAME, TRUNK):
        if hasattr(model.base, name):
            delattr(model.base, name)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
