"""IA3: keys, values and inner activations rescaled by learned vectors.

``k <- l_k * k``, ``v <- l_v * v``, and the feed-forward's inner activations ``h <- l_h * h``, all
starting at 1 (Liu et al. 2022, arXiv 2205.05638), through peft. Some ten thousand parameters; where
queries, keys and values are one matrix, its whole output is rescaled.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from luthier.core.contracts import KindConfig
from luthier.core.errors import RecipeError
from luthier.methods._lora_targets import is_matrix
from luthier.methods._peft import PeftMethod, task, transposed
from luthier.ops.quantized import peft

#: Last parts of the names of keys and values, and of matrices that hold queries as well.
_KEYS = {"k_proj", "v_proj", "key", "value", "k_lin", "v_lin", "k", "v", "key_proj", "value_proj"}
_FUSED = {"c_attn", "query_key_value", "qkv_proj", "Wqkv", "in_proj"}


class Config(KindConfig):
    """IA3 has no settings of its own."""

    kind: str = "ia3"


class Method(PeftMethod):
    """See the module."""

    default_rate: ClassVar[float] = 3e-3
    trained = ("ia3_",)

    def peft_config(self, model: nn.Module) -> Any:
        """Of peft's IA3.

        Raises:
            RecipeError: no keys, values or feed-forward layers are found.
        """
        rescaled, inner = _layers(model)
        if not (rescaled and inner):
            raise RecipeError(
                "method 'ia3' does not find this architecture's keys, values and feed-forward "
                "layers",
                cure="method: lora",
                code="pairing",
            )
        return peft().IA3Config(
            target_modules=[*rescaled, *inner],
            feedforward_modules=inner,
            fan_in_fan_out=any(map(transposed, model.modules())),
            **task(model),
        )


def _layers(model: Any) -> tuple[list[str], list[str]]:
    """Names of the matrices that give keys and values, and of those that read inner activations.

    The latter stand outside attention and map another width to the hidden size.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = base.config.get_text_config().hidden_size
    rescaled, inner = [], []
    for name, module in base.named_modules():
        name = name.removesuffix(".base_layer")
        if not is_matrix(module):
            continue
        *above, leaf = name.split(".")
        attends = any(w in part.lower() for part in above for w in ("attn", "attention"))
        outputs, inputs = module.weight.shape
        if transposed(module):
            outputs, inputs = inputs, outputs
        if attends and leaf in _KEYS | _FUSED:
            rescaled.append(name)
        elif not attends and outputs == hidden and inputs > hidden and above:
            inner.append(name)
    return rescaled, inner
