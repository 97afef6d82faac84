"""A transformers model as objectives see it: its own logits, losses and gradients, unchanged."""

from __future__ import annotations

from typing import Any

import builders
import pytest
import torch
from builders import DECODERS, VOCABULARY, document, gap, gradients, tree

from luthier.core.contracts import LanguageModel
from luthier.data.batching import collate
from luthier.models.language_model import CausalModel
from luthier.ops import attention, cross_entropy

#: Architectures with a shape of logits of their own: a factor, a divisor, a cap, a bias.
SHAPED: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 4.0},
    "gemma2": {**DECODERS["gemma2"], "final_logit_softcapping": 0.5},
    "phi": DECODERS["phi"],
    "llama": DECODERS["llama"],
}


def shaped(architecture: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**builders._COMMON, **SHAPED[architecture]}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(architecture, **settings), dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()


def lora(model: Any, **settings: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    return adapted


@pytest.mark.parametrize("architecture", SHAPED)
def test_logits_are_the_models_own(architecture: str) -> None:
    model = shaped(architecture)
    lm, example = CausalModel(model), document(12)
    with torch.no_grad():
        ours = lm.logits(lm.hidden(collate([example])))
        model.set_attn_implementation("eager")
        theirs = model(input_ids=torch.from_numpy(example.segments[0].tokens)[None]).logits[0]
    assert float(theirs.std()) > 0.05
    assert gap(ours, theirs) < 1e-5


@pytest.mark.parametrize("architecture", SHAPED)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_those_of_the_models_own_logits(architecture: str, smoothing: float) -> None:
    model = shaped(architecture)
    lm, batch = CausalModel(model), collate([document(9), tree()])
    hidden = lm.hidden(batch)
    table = batch.targets["lm"]
    logits = lm.logits(hidden[table["position"]])
    losses = torch.nn.functional.cross_entropy(
        logits, table["token"], reduction="none", label_smoothing=smoothing
    )
    expected = (losses * table["weight"]).sum()
    found = lm.nll(batch, hidden, smoothing=smoothing)
    assert gap(found, expected) < 1e-4
    trained = list(model.parameters())
    ours = torch.autograd.grad(found, trained, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(expected, trained, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert gap(a, b) < 1e-3
    if not smoothing:
        logprobs, correct = lm.logprobs(batch, hidden)
        assert gap(logprobs, -losses) < 1e-5
        assert torch.equal(correct, logits.argmax(-1) == table["token"])


def test_losses_are_transformers_own() -> None:
    model = builders.tiny("llama")
    lm, example = CausalModel(model), document(15)
    batch = collate([example])
    loss = lm.nll(batch, lm.hidden(batch)) / len(batch.targets["lm"]["token"])
    model.set_attn_implementation("sdpa")
    ids = torch.from_numpy(example.segments[0].tokens)[None]
    assert gap(loss, model(input_ids=ids, labels=ids).loss) < 1e-5


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"]])
def test_an_adapter_is_seen_through(targets: Any) -> None:
    adapted = lora(builders.tiny("llama"), target_modules=targets)
    lm, batch = CausalModel(adapted), collate([document(9), document(6, 1)])
    hidden = lm.hidden(batch)
    loss = lm.nll(batch, hidden, smoothing=0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    found = gradients(adapted)
    assert all("lora_" in name for name in found)
    assert any("lm_head" in name for name in found) == (targets != "all-linear")

    adapted.zero_grad()
    adapted.base_model.model.set_attn_implementation("sdpa")
    expected = torch.zeros(())
    for example in (document(9), document(6, 1)):
        ids = torch.from_numpy(example.segments[0].tokens)[None]
        logits = adapted(input_ids=ids).logits[0, :-1]
        expected = expected + torch.nn.functional.cross_entropy(
            logits, ids[0, 1:], reduction="sum", label_smoothing=0.1
        )
    expected.backward()  # type: ignore[no-untyped-call]
    assert gap(loss, expected) < 1e-4
    assert gap(found, gradients(adapted)) < 1e-4


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, batch = CausalModel(builders.tiny("llama", torch.float64)), collate([document(30)])
    found = []
    for rows in (1, 7, 10_000):
        monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", rows * VOCABULARY * 8)
        lm.module.zero_grad()
        loss = lm.nll(batch, lm.hidden(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss, gradients(lm.module)))
    for loss, gradient in found[1:]:
        assert gap(loss, found[0][0]) < 1e-10
        assert gap(gradient, found[0][1]) < 1e-10


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text"])
def test_recomputed_activations_give_the_same_gradients(architecture: str) -> None:
    model = builders.tiny(architecture)
    lm, batch, found = CausalModel(model), collate([document(9), tree()]), []
    for recompute in (False, True):
        if recompute:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        loss = lm.nll(batch, lm.hidden(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        found.append(gradients(model))
    assert gap(*found) < 1e-6


def test_generating_restores_mode_and_attention() -> None:
    model = builders.tiny("llama").train()
    lm, batch = CausalModel(model), collate([document(9), tree()])
    before = lm.hidden(batch)
    with lm.generating() as ready:
        assert not ready.training
        assert ready.config._attn_implementation == "sdpa"
        out = ready.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False)
        assert out.shape[1] <= 7
    assert model.training
    assert torch.equal(lm.hidden(batch), before)
    assert model.config._attn_implementation == attention.NAME
    with pytest.raises(ZeroDivisionError), lm.generating():
        raise ZeroDivisionError
    assert model.training


def test_it_is_the_contract() -> None:
    lm: LanguageModel = CausalModel(builders.tiny("gpt2"))
    assert lm.module is lm.module
    assert CausalModel(builders.tiny("gpt2")).device.type == "cpu"


def test_dropout_is_on_while_training_and_off_otherwise() -> None:
    model = builders.tiny("gpt2", resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    lm, batch = CausalModel(model), collate([document(9), tree()])
    assert not torch.equal(lm.hidden(batch), lm.hidden(batch))
    model.eval()
    assert torch.equal(lm.hidden(batch), lm.hidden(batch))
