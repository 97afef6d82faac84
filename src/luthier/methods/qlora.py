"""LoRA beside a base in four bits (Dettmers et al. 2023, arXiv 2305.14314).

The matrices are kept as NF4 with double quantisation, a quarter of bfloat16's memory, and are
unpacked for each product; norms, embeddings and the output head stay float32, and so do the
adapter and its gradient. Products are computed in ``training.precision``. The base is quantised
anew from its own float weights wherever it is loaded, always with the same bits; merging goes
into those float weights, never into rounded ones, and ``luthier export`` says how far the merged
model is from the one that was trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from luthier.core.errors import UserError
from luthier.methods import lora
from luthier.methods._peft import weightless
from luthier.methods._snapshot import head_names
from luthier.ops import bottleneck
from luthier.ops.quantized import check_rows, holds_quantized, matrix_of, quantize, targets


class Config(lora.Config):
    """Settings of LoRA, but for its start."""

    kind: str = "qlora"
    start: Literal["zero", "loftq"] = "zero"  # type: ignore[assignment]
    """What the adapter starts as: nothing, or the best of its rank to what rounding takes from
    the matrix (LoftQ; the base is then read in full before it is quantised)."""


class Method(lora.Method):
    """See the module."""

    @property
    def quantize_on_load(self) -> bool:
        """LoftQ must see the matrices in full first."""
        return not self.covers_rounding

    @property
    def covers_rounding(self) -> bool:
        """Whether the adapter starts as what rounding loses."""
        return str(self.config.start) == "loftq"

    def prepare(self, model: nn.Module) -> nn.Module:
        """Adapters beside a quantised base; the matrices are quantised unless they are already.

        Raises:
            UserError: as LoRA's, or bitsandbytes is not installed.
        """
        bottleneck.refuse(model)
        if not (self.covers_rounding or weightless(model)):
            quantize(model, head_names(model))
        if self.config.dora:
            check_rows(model)
        return super().prepare(model)

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """The saved adapter, trainable, on a base in four bits."""
        quantize(model, head_names(model))
        return super().load(model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        """The full-precision base with the update added to its matrices.

        Raises:
            UserError: the base is quantised, and merging would round the update away.
        """
        if holds_quantized(model):
            raise UserError(
                "an adapter is not merged into a quantised base, which would round it away",
                cure="luthier export RUN --to merged loads the base in full and merges into that",
                code="quantised",
            )
        return super().merge(model)

    def _in_full(self, model: nn.Module) -> dict[str, Tensor] | None:
        if not self.covers_rounding or weightless(model):
            return None
        heads = head_names(model)  # of a trunk alone none
        names = targets(model, heads)
        full = {name: matrix_of(model.get_submodule(name)).clone() for name in names}
        quantize(model, heads)
        return full
