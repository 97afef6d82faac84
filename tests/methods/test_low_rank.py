"""Fused adapter layers compute what peft's compute, and step aside where they cannot."""

from __future__ import annotations

import copy
from typing import Any

import builders
import pytest
import torch
from builders import gap
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import Tensor

from luthier.methods import _low_rank
from luthier.methods._low_rank import fuse


def adapted(architecture: str = "llama", **settings: Any) -> Any:
    """A model whose adapter is away from the identity."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        target_modules=settings.pop("targets", "all-linear"),
        fan_in_fan_out=architecture == "gpt2",
        task_type="CAUSAL_LM",
        **settings,
    )
    module = get_peft_model(builders.tiny(architecture), config)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return module


def outcome(module: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradient of everything that learns."""
    torch.manual_seed(1)
    ids = torch.arange(12)[None]
    logits = module(input_ids=ids, use_cache=False).logits
    module.zero_grad()
    logits.square().sum().backward()
    return logits, {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every call of the fused product."""
    seen: list[int] = []
    plain = _low_rank.low_rank_linear

    def counted(*given: Any) -> Tensor:
        seen.append(1)
        return plain(*given)

    monkeypatch.setattr(_low_rank, "low_rank_linear", counted)
    return seen


def differ(module: Any) -> tuple[float, float]:
    """How far the fused model is from its unfused self: logits, gradients."""
    fused = copy.deepcopy(module)
    assert fuse(fused) == sum(type(m) is Linear for m in module.modules()) > 0
    (a, slopes), (b, others) = outcome(module), outcome(fused)
    assert slopes.keys() == others.keys()
    return gap(a, b), max(gap(slopes[name], others[name]) for name in slopes)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_a_fused_model_is_pefts(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fused_calls(monkeypatch)
    logits, slopes = differ(adapted(architecture).double())
    assert logits < 1e-12
    # Some norms go through float32 on their way back.
    assert slopes < 1e-5
    assert calls


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize(
    "settings", [{"lora_dropout": 0.3}, {"use_dora": True}, {"lora_bias": True}]
)
def test_what_is_no_plain_product_is_left_to_peft(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fused_calls(monkeypatch)
    module = adapted(**settings).train()
    assert differ(module) == (0.0, 0.0)
    assert not calls
    if "lora_dropout" in settings:  # which is silent in evaluation
        differ(module.eval())
        assert calls


def test_an_adapter_that_is_off_or_merged_is_left_to_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    module = adapted()
    fuse(module)
    calls = fused_calls(monkeypatch)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        with module.disable_adapter():
            off = module(input_ids=ids).logits
        before = module(input_ids=ids).logits
        assert calls
        calls.clear()
        module.merge_adapter()
        assert gap(module(input_ids=ids).logits, before) < 1e-5
        module.unmerge_adapter()
    assert not calls
    with torch.no_grad():
        assert gap(off, builders.tiny()(input_ids=ids).logits) == 0
        assert gap(off, before) > 1e-3


def test_a_matrix_that_learns_is_left_to_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    module = adapted(targets=["q_proj"])
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or "q_proj.base_layer" in name)
    calls = fused_calls(monkeypatch)
    assert differ(module) == (0.0, 0.0)
    assert not calls


def test_names_and_files_stay_as_they_are(tmp_path: Any) -> None:
    module = adapted()
    names = list(module.state_dict())
    fuse(module)
    assert list(module.state_dict()) == names
    module.save_pretrained(tmp_path, save_embedding_layers=False)
    again = PeftModel.from_pretrained(builders.tiny(), tmp_path)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert gap(module(input_ids=ids).logits, again(input_ids=ids).logits) < 1e-5
        merged = copy.deepcopy(module).merge_and_unload()
        assert gap(module(input_ids=ids).logits, merged(input_ids=ids).logits) < 1e-5
