"""The model as a tree: every parameter once, alike layers together, what is trained counted."""

from __future__ import annotations

from typing import Any

import builders
import classifiers
import pytest
import torch

from luthier.core import kinds
from luthier.models.load import count_parameters
from luthier.models.outline import Part, outline

METHODS = [kind for kind in kinds.names("methods") if kind not in ("head", "prompt_tuning")]


def tree(method: str, module: Any) -> list[Part]:
    way = kinds.build("methods", kinds.config("methods", method))
    return outline(way.prepare(module))


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_is_in_one_branch(method: str) -> None:
    module = builders.tiny("llama", num_hidden_layers=3)
    way = kinds.build("methods", kinds.config("methods", method))
    prepared = way.prepare(module)
    parts = outline(prepared)
    trained, total = count_parameters(prepared)
    top = [part for part in parts if part.depth == 0]
    assert (sum(p.total for p in top), sum(p.trained for p in top)) == (total, trained)


def test_layers_that_are_alike_are_one() -> None:
    parts = tree("lora", builders.tiny("llama", num_hidden_layers=3))
    [layers] = [part for part in parts if part.name.startswith("layers")]
    assert layers.name == "layers 0 to 2"
    [query] = [part for part in parts if part.name == "q_proj"]
    assert query.what == "Linear 32×32 + rank 16"
    assert query.trained == 16 * 64
    norms = [part for part in parts if part.name == "norm"]
    assert norms[0].trained == 0


def test_layers_that_differ_are_apart() -> None:
    module = builders.tiny("llama", num_hidden_layers=3)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(".layers.2." in name)
    names = [part.name for part in outline(module) if part.name.startswith("layers")]
    assert names == ["layers 0 to 1", "layers 2"]


def test_what_is_packed_says_so() -> None:
    parts = tree("qlora", builders.tiny())
    [query] = [part for part in parts if part.name == "q_proj"]
    assert query.what == "Linear4bit 32×32 in four bits + rank 16"
    assert query.total == 32 * 32 + 16 * 64


def test_heads_and_shapes_without_weights() -> None:
    with torch.device("meta"):
        parts = tree("head", classifiers.pooled("distilbert", "mean"))
    assert [part.name for part in parts if part.trained] == ["classifier"]
