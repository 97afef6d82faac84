"""The memory planner: an honest estimate, a budget that holds the longest example, or an error."""

from __future__ import annotations

from typing import Any

import builders
import psutil
import pytest
import torch

from luthier.core.errors import UserError
from luthier.data.batching import collate
from luthier.models import plan
from luthier.models.language_model import CausalModel
from luthier.models.plan import activation_bytes, inner_size, make_plan

CPU = torch.device("cpu")
GB = 2**30


def config(**changes: Any) -> Any:
    return builders.tiny("llama", **changes).config


def planned(monkeypatch: pytest.MonkeyPatch, free: int, **changes: Any) -> plan.Plan:
    monkeypatch.setattr(plan, "free_memory", lambda device: free)
    settings: dict[str, Any] = {"longest": 100, "device": CPU, **changes}
    return make_plan(config(), 1000, 100, **settings)


def test_the_budget_grows_with_free_memory_up_to_what_helps(monkeypatch: Any) -> None:
    budgets = [planned(monkeypatch, free).token_budget for free in (10**7, 2 * 10**7, 64 * GB)]
    assert budgets[0] < budgets[1] < budgets[2] == plan._MOST["cpu"]


def test_the_budget_holds_the_longest_example(monkeypatch: Any) -> None:
    assert planned(monkeypatch, 64 * GB, longest=100_000).token_budget == 100_000


def test_what_does_not_fit_is_an_error_with_a_cure(monkeypatch: Any) -> None:
    with pytest.raises(UserError, match="longest example has 100,000 tokens") as caught:
        planned(monkeypatch, 10**8, longest=100_000)
    assert "gradient_checkpointing" in caught.value.faults[0].cure
    assert caught.value.faults[0].code == "memory"


def test_a_budget_of_the_recipe_is_taken_as_it_is(monkeypatch: Any) -> None:
    assert planned(monkeypatch, 10**6, longest=10**6, budget=77).token_budget == 77


def test_the_peak_is_weights_training_and_activations(monkeypatch: Any) -> None:
    made = planned(monkeypatch, GB)
    assert made.weights == 4000
    assert made.training == 1200
    assert made.peak() == 5200 + made.per_token * made.token_budget


def test_recomputation_and_halves_are_cheaper() -> None:
    def cost(sixteen_bit: bool, recompute: bool) -> int:
        settings = config(num_hidden_layers=12, hidden_size=64)
        return activation_bytes(settings, sixteen_bit=sixteen_bit, recompute=recompute)

    assert cost(True, False) < cost(False, False)
    assert cost(False, True) < cost(False, False) / 3


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2", "gpt_neox", "phi", "gemma2"])
def test_the_estimate_is_near_what_is_really_kept(architecture: str) -> None:
    model = builders.tiny(architecture, num_hidden_layers=4, intermediate_size=256)
    lm, batch = CausalModel(model), collate(builders.examples([60] * 8))
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = lm.hidden(batch)
    real = sum(kept.values()) / batch.size
    assert hidden.requires_grad
    estimate = activation_bytes(model.config, sixteen_bit=False, recompute=False, scored=60)
    assert real * 0.85 < estimate < real * 2, f"{estimate} estimated, {real:.0f} kept a token"


@pytest.mark.parametrize("architecture", builders.DECODERS)
def test_every_architecture_says_its_width(architecture: str) -> None:
    assert inner_size(builders.tiny(architecture).config) == (
        48 if architecture != "gpt2" else builders.tiny("gpt2").config.n_inner
    )


def test_a_width_left_open_is_four_times_the_hidden_size() -> None:
    assert inner_size(builders.tiny("gpt2", intermediate_size=None).config) == 128


def test_free_memory_is_the_systems() -> None:
    assert plan.free_memory(CPU) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
