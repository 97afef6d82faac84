"""A causal model with a value head: what an answer will earn, guessed before each of its tokens.

``R`` rows, ``H`` hidden size. The head stands on the model only while it is trained; what a run
saves is the policy alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from luthier.core.records import Batch
from luthier.models.language_model import CausalModel
from luthier.ops.anatomy import unwrapped

#: The head's name on the transformers model, and its kind among an objective's heads.
NAME, HEAD = "value_head", "value"


class ValuedModel(CausalModel):
    """See :class:`luthier.core.contracts.HeadedModel`; :func:`attach` gives a module its head."""

    def pooled(self, batch: Batch, hidden: Tensor, segments: Tensor) -> Tensor:
        """The last token of each of these segments: ``[R, H]``."""
        starts = torch.tensor(batch.segments.starts, device=hidden.device)
        lengths = torch.tensor(batch.segments.lengths, device=hidden.device)
        return hidden.index_select(0, (starts + lengths - 1)[segments])

    def outputs(self, head: str, rows: Tensor) -> Tensor:
        """Values of chosen states: ``[R, H] -> [R, 1]``."""
        assert head == HEAD, f"this model has no head '{head}'"
        layer: nn.Linear = getattr(self.base, NAME)
        found: Tensor = layer(rows.to(layer.weight.dtype))
        return found


def attach(module: nn.Module) -> ValuedModel:
    """The model with a fresh head, trained like everything that its method trains.

    It starts at zero: a critic that knows nothing expects nothing, and moves nothing below it.
    """
    base: Any = unwrapped(module)
    first = next(parameter for parameter in base.parameters() if parameter.is_floating_point())
    layer = nn.Linear(base.config.get_text_config().hidden_size, 1, dtype=_wide(first.dtype))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    setattr(base, NAME, layer.to(first.device))
    return ValuedModel(module)


def detach(model: CausalModel) -> None:
    """Takes the head off, where there is one."""
    if hasattr(model.base, NAME):
        delattr(model.base, NAME)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
