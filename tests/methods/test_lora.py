"""LoRA: peft's own arithmetic, the merge's precision, and runs that continue an adapter."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from builders import DECODERS, document, gap
from torch import nn

from luthier.core.errors import RecipeError
from luthier.data.batching import collate
from luthier.methods._lora_targets import attention_layers
from luthier.methods.lora import Config, Method
from luthier.models.language_model import CausalModel


def adapted(architecture: str = "llama", **settings: Any) -> tuple[Method, Any]:
    """A model whose adapter is away from the identity."""
    method = Method(Config(**{"rank": 4, **settings}))
    module = method.prepare(builders.tiny(architecture))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    return method, module


def logits(module: nn.Module) -> torch.Tensor:
    lm = CausalModel(module)
    with torch.no_grad():
        return lm.logits(lm.hidden(collate([document(12)])))


@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"dora": True}, {"alpha": 1.5}])
def test_the_forward_pass_is_pefts(settings: dict[str, Any]) -> None:
    from peft import (
        LoraConfig,
        get_peft_model,
        get_peft_model_state_dict,
        set_peft_model_state_dict,
    )

    _, module = adapted(**settings)
    theirs = get_peft_model(
        builders.tiny(),
        LoraConfig(
            r=4,
            lora_alpha=settings.get("alpha", 8),
            target_modules="all-linear",
            use_rslora=settings.get("rslora", False),
            use_dora=settings.get("dora", False),
            task_type="CAUSAL_LM",
        ),
    )
    weights = get_peft_model_state_dict(module, save_embedding_layers=False)
    set_peft_model_state_dict(theirs, weights)
    ids = torch.from_numpy(document(12).segments[0].tokens)[None]
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids).logits[0]
    assert gap(logits(module), expected) < 1e-5
    assert gap(logits(module), logits(builders.tiny())) > 1e-2


@pytest.mark.parametrize(("rslora", "scale"), [(False, 3 / 4), (True, 3 / math.sqrt(4))])
def test_the_forward_pass_is_the_papers(rslora: bool, scale: float) -> None:
    _, module = adapted(alpha=3, rslora=rslora)
    layer = module.base_model.model.model.layers[0].self_attn.q_proj
    x = torch.randn(5, 32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        expected = x @ layer.base_layer.weight.T + scale * (x @ a.T @ b.T)
        assert gap(layer(x), expected) < 1e-6


def test_alpha_is_twice_the_rank_unless_given() -> None:
    _, module = adapted(rank=6)
    assert module.peft_config["default"].lora_alpha == 12


def test_merging_is_exact_in_float32_and_not_in_bfloat16() -> None:
    """The pitfall's figures: 7.5e-8 in float32, 2.4e-3 in bfloat16."""
    method, module = adapted()
    expected = logits(module)
    scale = float(expected.abs().max())
    in_float32 = gap(logits(method.merge(copy.deepcopy(module))), expected) / scale
    halved = copy.deepcopy(module).bfloat16()
    in_bfloat16 = gap(logits(method.merge(halved).float()), expected) / scale
    assert in_float32 < 2e-6
    assert in_bfloat16 > 100 * in_float32


def test_the_adapter_stays_float32_under_a_bfloat16_forward_pass() -> None:
    _, module = adapted()
    with torch.autocast("cpu", torch.bfloat16):
        lm, batch = CausalModel(module), collate([document(12)])
        lm.nll(batch, lm.hidden(batch)).backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None, name
            assert parameter.grad.dtype == torch.float32


def on_attention(name: str) -> bool:
    return "attn" in name or "attention" in name


@pytest.mark.parametrize("architecture", DECODERS)
def test_attention_targets_are_all_of_attention_and_nothing_else(architecture: str) -> None:
    _, module = adapted(architecture, targets="attention")
    touched = {n.split(".lora_")[0] for n, p in module.named_parameters() if p.requires_grad}
    matrices = {
        name
        for name, part in module.named_modules()
        if (isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D") and "lora_" not in name
    }
    expected = {n.removesuffix(".base_layer") for n in matrices if on_attention(n)}
    assert touched == expected
    assert len(touched) >= 4


@pytest.mark.parametrize("architecture", DECODERS)
def test_all_linear_is_everything_but_the_head(architecture: str) -> None:
    _, module = adapted(architecture)
    touched = {n.split(".lora_")[0] for n, p in module.named_parameters() if p.requires_grad}
    plain = {
        name
        for name, part in module.named_modules()
        if (isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D")
        and "lora_" not in name
        and not name.endswith("base_layer")
    }
    assert [name.rsplit(".", 1)[-1] for name in plain] in (["lm_head"], ["embed_out"])
    assert touched


def test_names_are_short_where_they_can_be() -> None:
    assert attention_layers(builders.tiny("llama")) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert attention_layers(builders.tiny("gpt2")) == ["attn.c_proj", "c_attn"]


def test_targets_that_match_nothing_are_refused_with_the_names_there_are() -> None:
    with pytest.raises(RecipeError, match=r"method\.targets.*match no matrix") as caught:
        Method(Config(targets=("q_prog",))).prepare(builders.tiny())
    assert "q_proj" in caught.value.faults[0].cure


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    method, module = adapted()
    method.save(module, tmp_path)
    return tmp_path


def loaded(folder: Path) -> Any:
    """A base with the adapter on it, as :func:`luthier.models.load.load` gives it."""
    from peft import PeftModel

    return PeftModel.from_pretrained(builders.tiny(), str(folder))


def test_a_run_that_continues_an_adapter_has_it_as_its_reference(saved: Path) -> None:
    expected = logits(loaded(saved))
    method = Method(Config(rank=4))
    module = method.prepare(loaded(saved))
    method.keep_start(module)
    assert torch.equal(logits(module), expected)
    assert {n for n, p in module.named_parameters() if p.requires_grad} == {
        n for n, _ in module.named_parameters() if ".lora_" in n
    }
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    assert gap(logits(module), expected) > 1e-3
    with method.reference(module):
        assert torch.equal(logits(module), expected)
    # Adapters off is another thing here: that is the base of the run before.
    with module.disable_adapter():
        assert gap(logits(module), expected) > 1e-2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rank": 8}, "rank 4 .the adapter. / 8"),
        ({"alpha": 5}, "alpha 8"),
        ({"rslora": True}, "rslora False"),
        ({"dora": True}, "dora False"),
        ({"targets": "attention"}, "targets .*down_proj"),
        ({"targets": ("q_proj", "v_proj")}, "targets .*down_proj"),
        ({"targets": r".*q_proj"}, "targets .*down_proj"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    saved: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError, match=named):
        Method(Config(**{"rank": 4, **settings})).prepare(loaded(saved))


@pytest.mark.parametrize(
    "targets", ["all-linear", "attention", ("q_proj", "v_proj"), r".*\.(q|k)_proj"]
)
def test_the_same_targets_are_recognised_however_they_are_written(
    targets: Any, tmp_path: Path
) -> None:
    method, module = adapted(targets=targets)
    method.save(module, tmp_path)
    Method(Config(rank=4, targets=targets)).prepare(loaded(tmp_path))


def test_a_continued_adapter_takes_the_recipes_dropout(saved: Path) -> None:
    lm = CausalModel(Method(Config(rank=4, dropout=0.5)).prepare(loaded(saved)).train())
    batch = collate([document(12)])
    assert not torch.equal(lm.hidden(batch), lm.hidden(batch))


def test_an_adapter_loads_with_plain_peft_and_asks_no_network(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refused(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    method, module = adapted()
    module.peft_config["default"].base_model_name_or_path = "luthier-tests/some-hub-model"
    method.save(module, saved)
    assert gap(logits(loaded(saved)), logits(module)) == 0


def matrices(module: Any) -> dict[str, torch.Tensor]:
    """The largest singular values' part of each matrix of the base, as PiSSA takes it."""
    made = {}
    for name, part in builders.tiny().named_modules():
        if isinstance(part, nn.Linear) and name != "lm_head":
            left, values, right = torch.linalg.svd(part.weight.detach(), full_matrices=False)
            made[name] = left[:, :4] * values[:4] @ right[:4]
    return made


def test_pissa_starts_as_the_largest_singular_values() -> None:
    module: Any = Method(Config(rank=4, start="pissa", alpha=3)).prepare(builders.tiny())
    plain = dict(builders.tiny().named_parameters())
    for name, expected in matrices(module).items():
        layer = module.get_base_model().get_submodule(name)
        down, up = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
        assert gap(layer.scaling["default"] * up @ down, expected) < 1e-5
        assert gap(layer.base_layer.weight + expected, plain[f"{name}.weight"]) < 1e-5
        norms = down.norm(dim=1), up.norm(dim=0)
        assert gap(*norms) < 1e-5, "the values are divided evenly"


@pytest.mark.parametrize("rslora", [False, True])
def test_a_pissa_adapter_is_right_on_the_original_base(rslora: bool, tmp_path: Path) -> None:
    from peft import PeftModel

    method = Method(
        Config(
            rank=4,
            start="pissa",
            rslora=rslora,
            rank_pattern={"q_proj": 2},
            alpha_pattern={"v_proj": 5.0},
        )
    )
    module = method.prepare(builders.tiny())
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    method.save(module, tmp_path)
    plain = PeftModel.from_pretrained(builders.tiny(), str(tmp_path))
    assert gap(logits(plain), logits(module)) < 1e-4
    assert gap(logits(plain), logits(builders.tiny())) > 1e-2
    layer = plain.get_base_model().model.layers[0].self_attn
    assert (layer.q_proj.r["default"], layer.k_proj.r["default"]) == (4, 8)


def test_plus_ratio_is_bs_rate_over_as() -> None:
    method = Method(Config(rank=4, plus_ratio=16))
    module = method.prepare(builders.tiny())
    rates = {n: g["rate"] for g in method.param_groups(module) for n in g["names"]}
    assert {rate for n, rate in rates.items() if "lora_B" in n} == {16}
    assert {rate for n, rate in rates.items() if "lora_A" in n} == {1}


def test_patterns_give_single_matrices_their_rank_and_alpha() -> None:
    _, module = adapted(rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.mlp.up_proj": 1.0})
    layers = module.get_base_model().model.layers
    assert layers[0].self_attn.q_proj.r["default"] == 2
    assert layers[0].self_attn.k_proj.r["default"] == 4
    assert layers[1].mlp.up_proj.scaling["default"] == 1 / 4
    assert layers[0].mlp.up_proj.scaling["default"] == 2


@pytest.mark.parametrize("setting", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_means_nothing_is_refused(setting: str) -> None:
    with pytest.raises(RecipeError, match=f"method.{setting} 'q_porj' means no matrix"):
        adapted(**{setting: {"q_porj": 2}})
