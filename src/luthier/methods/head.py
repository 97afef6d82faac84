"""A new head on a frozen trunk: the linear probe, or feature extraction.

Nothing below the head changes, so the trunk's activations are computed once and cached; what
remains is the training of a very small model. Started from its result, full fine-tuning distorts
the pretrained features less (linear probing, then fine-tuning: Kumar et al. 2022,
arXiv 2202.10054): as two ``stages``, this method and then ``full``.

With ``solver: lbfgs`` the head is not trained in steps: it is logistic regression on the pooled
states (or a small network, where the objective has ``hidden``), solved for all rows at once in
seconds, its probabilities calibrated; see :mod:`luthier.engine.solver`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from luthier.core.contracts import KindConfig, Objective
from luthier.core.contracts_beside import Solve
from luthier.core.contracts_scores import Scoring
from luthier.core.settings import RefusalError
from luthier.methods._plain import PlainMethod
from luthier.methods._snapshot import head_names, merged, reloaded
from luthier.ops import anatomy

#: Largest entry of the gradient where a fit ends: flatter ones change no figure's fourth digit.
TOLERANCE = 1e-4


class Config(KindConfig):
    """Settings of training the head alone."""

    kind: str = "head"
    solver: Literal["steps", "lbfgs"] = "steps"
    """``steps`` trains as every method does; ``lbfgs`` solves for all rows at once: no batches,
    no epochs, no learning rate."""
    l2: Annotated[float, Field(ge=0)] | Literal["auto"] = 1e-4
    """Of ``lbfgs``: strength of the penalty on the head's matrices; ``auto`` tries several on
    held-out training rows."""
    calibrate: bool = True
    """Of ``lbfgs``: divide the scores by the temperature that suits held-out training rows best
    (Guo et al. 2017, arXiv 1706.04599); no prediction changes by it."""
    held: float = Field(default=0.1, gt=0, lt=1)
    """Of ``lbfgs``: share of the training rows held out for these two choices; the head is then
    fitted to all."""
    iterations: int = Field(default=500, ge=1)
    """Of ``lbfgs``: bound on those of one fit."""

    @model_validator(mode="after")
    def _solved(self) -> Config:
        own = {"l2", "calibrate", "held", "iterations"}
        defaults = {name: type(self).model_fields[name].default for name in own}
        changed = [name for name in sorted(own) if getattr(self, name) != defaults[name]]
        if self.solver == "steps" and changed:
            raise RefusalError(f"'{changed[0]}' has no meaning for steps", "solver: lbfgs")
        return self


class Method(PlainMethod):
    """See the module."""

    default_rate: ClassVar[float] = 1e-2
    config: Config

    @property
    def solve(self) -> Solve | None:
        """All rows at once, where the recipe says so."""
        c = self.config
        if c.solver == "steps":
            return None
        l2 = None if isinstance(c.l2, str) else c.l2
        return Solve(l2, c.calibrate, c.held, c.iterations, TOLERANCE)

    def supports(self, objective: Objective) -> str | None:
        """Objectives with a head of their own."""
        if all(head.kind == "embedding" for head in objective.heads):
            return (
                f"'head' trains a fresh head, and '{objective.config.kind}' has none: a text's "
                "vector is the trunk's own; take lora or full"
            )
        parts = [part for head in objective.heads for part in head.parts]
        if parts and self.config.solver != "steps":
            return "'head' solves for one head at a time, and there are several: solver: steps"
        if pretrained := [p.name for p in parts if p.kind in ("lm", "masked_lm")]:
            return (
                f"'head' trains fresh heads, and task '{pretrained[0]}' reads the language-model "
                "head, which is pretrained: take lora or full"
            )
        if any(head.kind in ("lm", "masked_lm") for head in objective.heads):
            return (
                f"'head' trains a fresh head, and '{objective.config.kind}' reads only the "
                "language-model head, which is pretrained: take lora or full"
            )
        if self.solve is not None and isinstance(objective, Scoring):
            return (
                f"'solver: lbfgs' takes rows one by one, and '{objective.config.kind}' compares "
                "answers of one prompt: take solver: steps"
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
