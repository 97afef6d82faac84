"""A student from some of a model's layers computes exactly what these layers compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import classifiers
import pytest
import torch
from builders import gap
from torch import nn

from luthier.core.errors import RecipeError
from luthier.core.recipe import ModelSpec
from luthier.data.batching import collate
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import CausalModel
from luthier.models.layers import chosen, student
from luthier.models.load import load
from luthier.models.skeleton import skeleton

FOUR = {"num_hidden_layers": 4}
CHANGES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "distilbert": {"n_layers": 4},
}


def decoder(name: str) -> Any:
    return builders.tiny(name, **FOUR, **CHANGES.get(name, {})).eval()


def encoder(name: str) -> Any:
    return classifiers.own(name, **(CHANGES.get(name) or FOUR))


def logits(module: Any) -> torch.Tensor:
    """Of all tokens, or of one text."""
    model: Any
    with torch.no_grad():
        if hasattr(module, "head_names"):
            model = ClassifierModel(module)
            batch = collate([builders.document(9)], **model.layout)
            pooled = model.pooled(batch, model.hidden(batch), torch.tensor([0]))
            return model.outputs("classification", pooled)
        model = CausalModel(module)
        return model.logits(model.hidden(collate([builders.document(9)], **model.layout)))


def skipping(module: Any, kept: tuple[int, ...]) -> torch.Tensor:
    """The logits of the whole model whose other layers let everything through."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m) == 4]
    [stack] = lists
    handles = [
        layer.register_forward_hook(_through, with_kwargs=True)
        for place, layer in enumerate(stack)
        if place not in kept
    ]
    found = logits(module)
    for handle in handles:
        handle.remove()
    return found


def _through(_layer: Any, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> Any:
    states = given[0] if given else named["hidden_states"]
    return (states, *out[1:]) if isinstance(out, tuple) else states


@pytest.mark.parametrize("name", builders.DECODERS)
def test_a_decoders_layers_compute_what_they_did(name: str) -> None:
    module = decoder(name)
    made = student(module, (0, 2))
    assert made.config.num_hidden_layers == 2
    types = getattr(module.config, "layer_types", None)
    if types:
        assert list(made.config.layer_types) == [types[0], types[2]]
    assert gap(logits(made), skipping(module, (0, 2))) < 1e-6
    assert gap(logits(made), logits(module)) > 1e-3


@pytest.mark.parametrize("name", classifiers.ENCODERS)
def test_an_encoders_layers_compute_what_they_did_and_the_head_comes_along(name: str) -> None:
    module = encoder(name)
    made = student(module, 2)
    assert made.head_names == module.head_names
    assert gap(logits(made), skipping(module, (0, 3))) < 1e-6


def test_all_layers_are_the_model() -> None:
    module = decoder("qwen3")
    assert torch.equal(logits(student(module, 4)), logits(module))


def test_layers_are_drawn_evenly_with_the_first_and_the_last() -> None:
    assert chosen(6, 12) == (0, 2, 4, 7, 9, 11)
    assert chosen(1, 6) == (0,)
    for count in range(2, 14):
        for wanted in range(2, count + 1):
            drawn = chosen(wanted, count)
            assert len({*drawn}) == wanted
            assert (drawn[0], drawn[-1]) == (0, count - 1)


@pytest.mark.parametrize("layers", [(0, 4), 5])
def test_layers_that_there_are_not_are_refused(layers: Any) -> None:
    with pytest.raises(RecipeError, match="4 layers"):
        student(decoder("llama"), layers)


def test_a_layer_that_cannot_stand_first_is_refused() -> None:
    with pytest.raises(RecipeError, match="do not fit"):
        student(encoder("modernbert"), (1, 2))


@pytest.mark.parametrize("words", [{"layers": [2, 0]}, {"layers": [1, 1]}, {"layers": []}])
def test_layers_in_disorder_are_no_recipe(words: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        ModelSpec(name="builtin:nano", **words)
    with pytest.raises(ValueError, match="no meaning"):
        ModelSpec(architecture="llama", layers=[0])


def test_a_saved_student_loads_anywhere_and_its_shape_is_known_before(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    decoder("gemma2").save_pretrained(tmp_path / "teacher")
    builders.tokenizer().save_pretrained(tmp_path / "teacher")
    spec = ModelSpec(name=str(tmp_path / "teacher"), layers=[0, 1, 3])
    made = load(spec).model.module
    made.save_pretrained(tmp_path / "student")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert again.config.num_hidden_layers == 3
    assert torch.equal(logits(again.eval()), logits(made.eval()))
    shape = skeleton(spec).model.module
    assert {n: p.shape for n, p in shape.named_parameters()} == {
        n: p.shape for n, p in made.named_parameters()
    }
