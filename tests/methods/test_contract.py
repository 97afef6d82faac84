"""Every method in the folder: law 5, exactly the promised parameters, saving, merging, step 0."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import builders
import classifiers
import pytest
import torch
from builders import document, gap, tree
from torch import nn

from luthier.core import kinds
from luthier.core.contracts import Method
from luthier.core.errors import UserError
from luthier.core.recipe import TrainingSpec
from luthier.core.records import Batch
from luthier.data.batching import collate
from luthier.engine.optim import make_optimizer
from luthier.methods._snapshot import head_names
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels
from luthier.ops import anatomy

KINDS = kinds.names("methods")
#: Settings worth the whole contract beside each method's defaults; behind the @ a model that
#: classifies: with its architecture's own head, or with a linear one on pooled states.
VARIANTS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in KINDS if kind != "head"},
    **{f"{kind}@{world}": {"kind": kind} for kind in KINDS for world in ("own", "pooled")},
    "lora-dora@own": {"kind": "lora", "dora": True, "rank": 4},
    "lora-rslora": {"kind": "lora", "rslora": True, "rank": 4},
    "lora-dora": {"kind": "lora", "dora": True, "rank": 4},
    "lora-attention": {"kind": "lora", "targets": "attention", "alpha": 3},
    "adapter-houlsby": {
        "kind": "adapter",
        "placement": "houlsby",
        "reduction_factor": 4,
        "activation": "gelu",
        "layer_norm": True,
    },
    "adapter-houlsby@own": {"kind": "adapter", "placement": "houlsby"},
    "freeze-layers": {"kind": "freeze", "layers": 1},
    "freeze-last@own": {"kind": "freeze", "last": 1},
    "freeze-layers@pooled": {"kind": "freeze", "layers": 2},
    "freeze-pattern": {"kind": "freeze", "pattern": r"\.0\.|mlp|wte|embed"},
}
#: Adapters that are no matrix, and so are part of no other.
UNMERGED = [variant for variant in VARIANTS if variant.startswith("adapter")]
MERGED = [variant for variant in VARIANTS if variant not in UNMERGED]


def build(variant: str) -> Method:
    method: Method = kinds.build("methods", kinds.config("methods", VARIANTS[variant]))
    return method


def batch() -> Batch:
    return collate([document(9, 1), tree(seed=2), document(14, 3)])


def logits(module: nn.Module) -> torch.Tensor:
    if head_names(module):
        with torch.no_grad():
            return class_scores(module)
    lm = CausalModel(module)
    with torch.no_grad():
        return lm.logits(lm.hidden(batch()))


def class_scores(module: nn.Module) -> torch.Tensor:
    """A classifier's scores; what is random in training is not what is compared."""
    model = ClassifierModel(module)
    given = collate([document(9, 1), document(14, 3), document(5, 4)], **model.layout)
    rows = model.pooled(given, model.hidden(given), torch.arange(3))
    return model.outputs("classification", rows)


def train(module: nn.Module, method: Method, steps: int = 3) -> None:
    """Real steps on one batch, with the optimizer of the engine."""
    optimizer = make_optimizer(TrainingSpec(weight_decay=0.1), method.param_groups(module), 1e-2)
    module.train()
    for _ in range(steps):
        if head_names(module):
            loss = nn.functional.cross_entropy(class_scores(module), torch.tensor([2, 0, 1]))
        else:
            lm = CausalModel(module)
            loss = lm.nll(batch(), lm.hidden(batch()))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def base(variant: str = "full", architecture: str = "llama") -> Any:
    """The model that a variant is for."""
    match variant.partition("@")[2]:
        case "own":
            return classifiers.own("bert" if architecture == "llama" else architecture)
        case "pooled":
            return classifiers.pooled("distilbert", "mean")
    return builders.tiny(architecture)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_law_5_at_step_0_model_reference_and_base_agree_bit_for_bit(
    variant: str, architecture: str
) -> None:
    plain, method = base(variant, architecture), build(variant)
    expected = logits(plain)
    module = method.prepare(plain)
    method.keep_start(module)
    assert torch.equal(logits(module), expected)
    with method.reference(module):
        assert torch.equal(logits(module), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_reference_stays_at_step_0_while_the_model_learns(variant: str) -> None:
    method = build(variant)
    module = method.prepare(base(variant))
    method.keep_start(module)
    start = logits(module)
    train(module, method)
    learned = logits(module)
    assert gap(start, learned) > 1e-3
    with method.reference(module):
        assert torch.equal(logits(module), start)
    assert torch.equal(logits(module), learned)
    with pytest.raises(ZeroDivisionError), method.reference(module):
        raise ZeroDivisionError
    assert torch.equal(logits(module), learned)
    train(module, method, 1)
    with method.reference(module):
        assert torch.equal(logits(module), start)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_runs_reference_has_neither_dropout_nor_gradient(variant: str) -> None:
    settings = {**VARIANTS[variant], **({"dropout": 0.5} if variant.startswith("lora") else {})}
    method: Method = kinds.build("methods", kinds.config("methods", settings))
    if "@" in variant:
        module = method.prepare(classifiers.own("bert", hidden_dropout_prob=0.3))
    else:
        module = method.prepare(builders.tiny("gpt2", resid_pdrop=0.3))
    method.keep_start(module)
    policy: Any = ClassifierModel(module) if "@" in variant else CausalModel(module)
    models = RunModels(policy, method)
    module.train()
    with models.reference() as reference:
        one, two = (reference.hidden(batch()) for _ in range(2))
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert module.training
    assert models.companions == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_exactly_the_promised_parameters_are_trained(variant: str) -> None:
    method = build(variant)
    module = method.prepare(base(variant))
    groups = method.param_groups(module)
    promised = [name for group in groups for name in group["names"]]
    assert len(promised) == len(set(promised))
    named = dict(module.named_parameters())
    assert {n for n, p in named.items() if p.requires_grad} == set(promised)
    for group in groups:
        assert [id(p) for p in group["params"]] == [id(named[n]) for n in group["names"]]
        assert group["rate"] > 0
        assert all((named[n].ndim >= 2) == group["decay"] for n in group["names"])
    before = {n: p.detach().clone() for n, p in named.items()}
    train(module, method, 2)
    changed = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(promised)


@pytest.mark.parametrize("kind", KINDS)
def test_each_method_says_what_it_trains(kind: str) -> None:
    variant = "head@pooled" if kind == "head" else kind
    module = build(variant).prepare(base(variant))
    trained = {n for n, p in module.named_parameters() if p.requires_grad}
    everything = {n for n, _ in module.named_parameters()}
    assert trained
    if kind == "head":
        assert trained == {"classifier.weight", "classifier.bias"}
    if kind == "full":
        assert trained == everything
    if kind == "lora":
        assert trained == {n for n in everything if ".lora_" in n}
    if kind == "adapter":
        assert trained == {n for n in everything if ".bottlenecks." in n}
        assert everything - trained == {n for n, _ in base(variant).named_parameters()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_gives_the_same_logits(variant: str, tmp_path: Path) -> None:
    method = build(variant)
    module = method.prepare(base(variant))
    train(module, method)
    method.save(module, tmp_path)
    expected = logits(module)
    assert not list(tmp_path.glob("*.bin")) + list(tmp_path.glob("*.pt"))
    assert list(tmp_path.glob("*.safetensors"))
    loaded = build(variant).load(base(variant), tmp_path)
    assert torch.equal(logits(loaded), expected)
    kept = {n for n, p in module.named_parameters() if p.requires_grad}
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == kept


@pytest.mark.parametrize("variant", UNMERGED)
def test_what_cannot_be_merged_is_refused_with_a_reason(variant: str) -> None:
    """By its own method, and by every other that would go on from it."""
    method = build(variant)
    module = method.prepare(base(variant))
    train(module, method, 1)
    with pytest.raises(UserError, match="nonlinearity"):
        method.merge(module)
    for kind in KINDS:
        if not variant.startswith(kind) and (kind != "head" or head_names(module)):
            other: Method = kinds.build("methods", kinds.config("methods", kind))
            with pytest.raises(UserError, match="nonlinearity"):
                other.prepare(module)


@pytest.mark.parametrize("variant", MERGED)
def test_law_5_merged_is_the_adapter(variant: str) -> None:
    method = build(variant)
    module = method.prepare(base(variant))
    train(module, method)
    expected = logits(module)
    merged = method.merge(copy.deepcopy(module))
    assert gap(logits(merged), expected) < 1e-5
    assert {n for n, _ in merged.named_parameters()} == {
        n for n, _ in base(variant).named_parameters()
    }
    assert type(merged) is type(base(variant))


@pytest.mark.parametrize("variant", MERGED)
def test_a_merged_model_is_trained_from_where_it_stands(variant: str) -> None:
    first, second = build(variant), build("full")
    module = first.prepare(base(variant))
    train(module, first)
    expected = logits(module)
    full = second.prepare(module)
    second.keep_start(full)
    assert all(p.requires_grad for p in full.parameters())
    assert gap(logits(full), expected) < 1e-5
    train(full, second, 1)
    with second.reference(full):
        assert gap(logits(full), expected) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_frozen_trunk_never_changes(variant: str) -> None:
    method = build(variant)
    module = method.prepare(base(variant))
    depth = method.frozen_depth(module)
    assert 0 <= depth <= len(anatomy.blocks(module)) == 2
    model = ClassifierModel(module) if "@" in variant else CausalModel(module)
    if not depth:
        assert any(p.requires_grad for p in anatomy.blocks(module)[0].parameters()) or any(
            p.requires_grad
            for p in model.trunk.get_input_embeddings().parameters()  # type: ignore[operator]
        )
        return
    model.divide(depth)
    given = collate([document(9, 1), document(14, 3)], **model.layout)
    module.train()
    start = model.lower(given)
    assert not start.requires_grad
    train(module, method)
    assert torch.equal(model.lower(given), start)
    whole = not any(p.requires_grad for p in model.trunk.parameters())
    assert whole or any(
        p.requires_grad for block in anatomy.blocks(module)[depth:] for p in block.parameters()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_of_its_own_and_an_answer_about_every_objective(kind: str) -> None:
    method = build("head@own" if kind == "head" else kind)
    assert 0 < method.default_rate < 1
    for name in kinds.names("objectives"):
        settings = kinds.config("objectives", builders.settings("objectives", name))
        objective = kinds.build("objectives", settings)
        refusal = method.supports(objective)
        assert refusal is None or refusal.strip()
