"""A new head on a frozen trunk: the linear probe, or feature extraction.

Nothing below the head changes, so the trunk's activations are computed once and cached; what
remains is the training of a very small model. Started from its result, full fine-tuning distorts
the pretrained features less (linear probing, then fine-tuning: Kumar et al. 2022,
arXiv 2202.10054): as two ``stages``, this method and then ``full``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.methods._plain import PlainMethod
from luthier.methods._snapshot import head_names, merged, reloaded
from luthier.ops import anatomy


class Config(KindConfig):
    """Training the head alone has no settings of its own."""

    kind: str = "head"


class Method(PlainMethod):
    """See the module."""

    default_rate: ClassVar[float] = 1e-2

    def supports(self, objective: Objective) -> str | None:
        """Objectives with a head of their own."""
        if all(head.kind in ("lm", "masked_lm") for head in objective.heads):
            return (
                f"'head' trains a fresh head, and '{objective.config.kind}' reads only the "
                "language-model head, which is pretrained: take lora or full"
            )
        return None

    def prepare(self, model: nn.Module) -> nn.Module:
        """Everything frozen but the head; the trunk without dropout, as its cache has it."""
        names = head_names(model)
        assert names, "a model without a head of its own"
        model = merged(model)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for name in names:
            model.get_submodule(name).requires_grad_(True)
        anatomy.silence(anatomy.whole(model))
        return model

    def frozen_depth(self, model: nn.Module) -> int:
        """All layers."""
        return int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved weights on a model of the same architecture."""
        return self.prepare(reloaded(model, folder))
