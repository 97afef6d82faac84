"""Learned vectors before a text: what peft computes, in any layout and tree (laws 1 and 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import pairs
import pytest
import torch
from builders import gap
from tiny_runs import tiny_recipe
from torch import Tensor

import luthier
from luthier.core import kinds
from luthier.core.errors import RecipeError
from luthier.data.batching import collate
from luthier.generation.sampling import Sampler, Sampling
from luthier.methods.prompt_tuning import Config, Method
from luthier.models.language_model import CausalModel
from luthier.models.load import load

LENGTH = 5


def tuned(architecture: str) -> Any:
    torch.manual_seed(3)
    return Method(Config(length=LENGTH)).prepare(builders.tiny(architecture)).eval()


def hidden(module: Any, examples: Any, **layout: Any) -> Tensor:
    model = CausalModel(module)
    with torch.no_grad():
        return model.hidden(collate(examples, **model.layout, **layout))


@pytest.mark.parametrize("architecture", builders.DECODERS)
def test_it_is_what_peft_computes(architecture: str) -> None:
    module = tuned(architecture)
    example = builders.document(12)
    ours = CausalModel(module).logits(hidden(module, [example]))
    base = module.get_base_model()
    base.set_attn_implementation("eager")
    ids = torch.from_numpy(example.segments[0].tokens)[None]
    with torch.no_grad():
        theirs = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    assert gap(ours, theirs[LENGTH:]) < 1e-4
    assert gap(ours, CausalModel(base).logits(hidden(base, [example]))) > 1e-2


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral", "gemma2"])
def test_laws_1_and_2_layouts_and_trees_agree(architecture: str) -> None:
    module = tuned(architecture)
    examples = [builders.document(9, 1), builders.tree(seed=2), builders.document(14, 3)]
    packed = hidden(module, examples)
    alone = torch.cat([hidden(module, [each]) for each in examples])
    assert gap(packed, alone) < 1e-5
    plain = [examples[0], examples[2]]
    assert gap(hidden(module, plain), hidden(module, plain, layout="padded")) < 1e-5
    assert gap(hidden(module, plain), hidden(module, plain, fill=16)) < 1e-5


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral", "gemma2"])
def test_generation_reads_the_vectors(architecture: str) -> None:
    """Prompts of two lengths in one call, against one forward pass a token."""
    module = tuned(architecture)
    model = CausalModel(module)
    prompts = [builders.tokens(9, 1).tolist(), builders.tokens(4, 2).tolist()]
    expected = []
    for prompt in prompts:
        row = list(prompt)
        for _ in range(6):
            example = builders.causal_example([(row, True)], builders.ORIGIN)
            row.append(int(model.logits(hidden(module, [example])[-1:]).argmax()))
        expected.append(row[len(prompt) :])
    sampler = Sampler(model.generating, builders.tokenizer(), [], 64)
    assert sampler.generate(prompts, Sampling(max_new_tokens=6, temperature=0.0)) == expected


def test_the_vectors_take_their_part_of_the_context() -> None:
    module = tuned("llama")
    assert CausalModel(module).context == 64 - LENGTH
    assert CausalModel(module.get_base_model()).context == 64


def test_objectives_that_read_a_whole_text_are_refused() -> None:
    method = Method(Config())
    for name, refused in (("sft", False), ("classification", True)):
        settings = {"kind": name, **({"classes": ["a", "b"]} if refused else {})}
        objective = kinds.build("objectives", kinds.config("objectives", settings))
        assert (method.supports(objective) is not None) == refused


@pytest.mark.parametrize("method", [{"kind": "prompt_tuning", "length": 4}, {"kind": "ia3"}])
def test_a_run_learns_answers_and_is_continued(
    method: dict[str, Any], tiny_run: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path / "run", model=str(tiny_run), method=method)
    recipe["training"] = {**recipe["training"], "max_steps": 60, "batch_size": 8}
    recipe["training"] |= {"epochs": 9, "learning_rate": 2e-2}
    run = luthier.train(recipe, quiet=True)
    figures = run.metrics["perplexity"]
    assert figures["after"] < figures["before"]
    assert run.generate("What is 2 plus 3?", max_new_tokens=4)
    loaded = load(str(run.path))
    assert loaded.context == 128 - method.get("length", 0)
    again = {**recipe, "model": str(run.path), "output": str(tmp_path / "on")}
    on = luthier.train(again, ["training.max_steps=2"], quiet=True)
    assert on.metrics["perplexity"]["before"] == pytest.approx(figures["after"], rel=1e-4)


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(RecipeError, match="one stack of layers"):
        Method(Config()).prepare(pairs.model("t5"))
