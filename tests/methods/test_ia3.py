"""IA3: which vectors there are, and that they do what the paper writes."""

from __future__ import annotations

from typing import Any

import builders
import pytest
import torch
from builders import gap

from luthier.core.errors import RecipeError
from luthier.methods.ia3 import Config, Method

WANTED = {
    "llama": {"k_proj", "v_proj", "down_proj"},
    "phi": {"k_proj", "v_proj", "fc2"},
    "gpt2": {"c_attn", "c_proj"},
    "gpt_neox": {"query_key_value", "dense_4h_to_h"},
}


def adapted(architecture: str = "llama") -> Any:
    return Method(Config()).prepare(builders.tiny(architecture))


@pytest.mark.parametrize("architecture", builders.DECODERS)
def test_keys_values_and_inner_activations_are_rescaled(architecture: str) -> None:
    module = adapted(architecture)
    names = {n.split(".ia3_l")[0] for n, p in module.named_parameters() if p.requires_grad}
    leaves = {name.rsplit(".", 1)[-1] for name in names}
    assert leaves == WANTED.get(architecture, WANTED["llama"])
    assert not any("attn.c_proj" in name or name.endswith("dense") for name in names)
    for name in names:
        layer = module.get_submodule(name)
        inner = layer.is_feedforward
        assert inner == (
            name.rsplit(".", 1)[-1] not in ("k_proj", "v_proj", "c_attn", "query_key_value")
        )


def test_it_is_the_papers() -> None:
    module = adapted()
    layers = module.get_base_model().model.layers[0]
    for layer, inputs in ((layers.self_attn.k_proj, False), (layers.mlp.down_proj, True)):
        scale = layer.ia3_l["default"]
        torch.manual_seed(0)
        with torch.no_grad():
            scale.normal_()
            x = torch.randn(3, layer.base_layer.in_features)
            weight, flat = layer.base_layer.weight, scale.flatten()
            expected = (x * flat) @ weight.T if inputs else (x @ weight.T) * flat
            assert gap(layer(x), expected) < 1e-5


def test_an_adapter_of_another_kind_is_not_continued() -> None:
    from luthier.methods import lora

    with pytest.raises(RecipeError, match="of another kind, IA3"):
        lora.Method(lora.Config()).prepare(adapted())
