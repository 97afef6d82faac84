"""Learning rates by depth and by name: the factors, what learns at them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import classifiers
import pairs
import pytest
import torch
from builders import gap
from torch import nn

from engine.small import Kept, small_loop, small_recipe, weights
from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.core.recipe import TrainingSpec
from luthier.engine.rates import described, rated, shares
from luthier.inspection import inspect

METHODS = [kind for kind in kinds.names("methods") if kind != "head"]


def groups_of(module: nn.Module, kind: str = "full", **training: Any) -> list[dict[str, Any]]:
    method = kinds.build("methods", kinds.config("methods", kind))
    prepared = method.prepare(module)
    return rated(method.param_groups(prepared), prepared, TrainingSpec(**training))


def factors(*given: Any, **training: Any) -> dict[str, float]:
    return {n: g["rate"] for g in groups_of(*given, **training) for n in g["names"]}


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi", "gpt_neox", "gemma3_text"])
def test_each_layer_learns_slower_than_the_one_above(name: str) -> None:
    found = factors(builders.tiny(name), layer_decay=0.5)
    for key, factor in found.items():
        if any(f".{part}.0." in key for part in ("layers", "h")):
            assert factor == 0.5, key
        elif any(word in key for word in ("embed", "wte", "wpe")):
            assert factor == 0.25, key
        else:
            assert factor == 1.0, key
    assert set(found.values()) == {0.25, 0.5, 1.0}


def test_a_decoder_learns_faster_than_the_encoder_that_it_reads() -> None:
    found = factors(pairs.model("bart"), layer_decay=0.5)
    for key, factor in found.items():
        layer = [int(part) for part in key.split(".") if part.isdigit()]
        if layer:
            assert factor == 0.5 ** (3 - layer[0] - (2 if ".decoder." in key else 0)), key
        else:
            assert factor == 0.5**4, key


@pytest.mark.parametrize("name", classifiers.ENCODERS)
@pytest.mark.parametrize("pooling", [None, "mean"])
def test_an_encoders_head_learns_at_the_full_rate(name: str, pooling: str | None) -> None:
    module = classifiers.own(name) if pooling is None else classifiers.pooled(name, pooling)
    found = factors(module, layer_decay=0.9, rates={"head": 5})
    assert {f for n, f in found.items() if "classifier" in n} == {5}
    assert {round(f, 6) for n, f in found.items() if "embeddings" in n} == {0.81}
    assert {round(f, 6) for f in found.values()} - {1} == {5, 0.9, 0.81}


@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind != "prompt_tuning"])
def test_every_method_learns_at_these_rates(kind: str) -> None:
    """One place, not a copy a method; nothing is lost or doubled when groups are divided."""
    plain = groups_of(builders.tiny(), kind)
    made = groups_of(builders.tiny(), kind, layer_decay=0.5, rates={"layers.1": 3})
    assert sorted(n for g in made for n in g["names"]) == sorted(
        n for g in plain for n in g["names"]
    )
    decays = {n: g["decay"] for g in plain for n in g["names"]}
    before = {n: g["rate"] for g in plain for n in g["names"]}
    for group in made:
        assert len(group["names"]) == len(group["params"])
        for name in group["names"]:
            assert decays[name] == group["decay"]
            layer = 3.0 if ".layers.1." in name else 0.5 if ".layers.0." in name else 1.0
            if "embed" in name:
                layer = 0.25
            assert group["rate"] == pytest.approx(before[name] * layer)


def test_patterns_match_whole_parts_and_the_last_one_counts() -> None:
    module = builders.tiny(num_hidden_layers=12)
    found = factors(module, rates={"layers.1*": 0.5, "layers.11": 0.25, "mlp.down_*": 2})
    of = {i: found[f"model.layers.{i}.self_attn.q_proj.weight"] for i in range(12)}
    assert of == {**dict.fromkeys(range(12), 1.0), 1: 0.5, 10: 0.5, 11: 0.25}
    assert found["model.layers.11.mlp.down_proj.weight"] == 2
    assert (
        factors(builders.tiny(num_hidden_layers=12), rates={"layers.1": 9})[
            "model.layers.10.mlp.up_proj.weight"
        ]
        == 1
    )


@pytest.mark.parametrize(
    ("kind", "pattern", "words"),
    [
        ("full", "mlpp", "did you mean 'mlp'"),
        ("full", "heads", "did you mean 'head'"),
        ("full", "zzz", "one of: "),
        ("lora", "embeddings", "not trained"),
        ("lora", "q_proj.weight", "names no parameter|not trained"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(kind: str, pattern: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        groups_of(builders.tiny(), kind, rates={pattern: 2})


def test_without_either_nothing_is_divided() -> None:
    made = groups_of(builders.tiny())
    assert [g["rate"] for g in made] == [1.0, 1.0]
    assert described(made, 1e-3) == ""


def test_the_loop_moves_each_part_at_its_rate(tmp_path: Path) -> None:
    """Plain SGD: twice the rate is twice the way, none below is touched, the log keeps the peak."""
    settings = {"optimizer": "sgd", "betas": (0.0, 0.9), "max_steps": 1, "clip_norm": None}
    settings |= {"schedule": "constant", "warmup": 0}
    moved: list[Any] = []
    for rates in ({}, {"layers.0": 2, "embeddings": 0.5}):
        kept = Kept()
        loop = small_loop(tmp_path / str(len(moved)), rates=rates, trackers=[kept], **settings)
        before = weights(loop)
        loop.train()
        moved.append({n: value - before[n] for n, value in weights(loop).items()})
        assert kept.of("step")[0]["learning_rate"] == pytest.approx(1e-3)
    for name, way in moved[0].items():
        factor = 2 if ".layers.0." in name else 0.5 if "embed" in name else 1
        assert gap(moved[1][name], way * factor) < 1e-6, name
        assert torch.any(way != 0)


def test_rates_are_said_and_inspected(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "run", layer_decay=0.5, rates={"head": 2})
    [seen] = inspect(recipes.load(recipe))
    assert seen.rates.startswith("0.01 (")
    assert "0.005 (" in seen.rates
    groups = groups_of(builders.tiny(), layer_decay=0.5, rates={"head": 2})
    assert list(shares(groups)) == [2.0, 1.0, 0.5, 0.25]
    assert sum(shares(groups).values()) == sum(p.numel() for p in builders.tiny().parameters())
    with pytest.raises(RecipeError, match="did you mean 'head'"):
        inspect(recipes.load(small_recipe(tmp_path / "run", rates={"heat": 2})))
