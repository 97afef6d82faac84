"""Every method in the folder: law 5, exactly the promised parameters, saving, merging, step 0."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import builders
import classifiers
import pairs
import pytest
import torch
from builders import document, gap, tree
from peft import PeftModel
from torch import nn

from luthier.core import kinds
from luthier.core.contracts import Method
from luthier.core.contracts_weights import QuantizedBase
from luthier.core.errors import UserError
from luthier.core.recipe import TrainingSpec
from luthier.core.records import Batch
from luthier.data.batching import collate
from luthier.engine.optim import make_optimizer
from luthier.methods._snapshot import head_names
from luthier.models.encoder_decoder import EncoderDecoderModel, language_model
from luthier.models.heads import ClassifierModel
from luthier.models.run_models import RunModels
from luthier.ops import anatomy
from luthier.ops.quantized import quantize

KINDS = kinds.names("methods")
#: Methods for language models alone.
GENERATIVE = {"prompt_tuning"}
#: Settings worth the whole contract beside each method's defaults; behind the @ a model that
#: classifies (with its architecture's own head, or with a linear one on pooled states), or an
#: encoder-decoder.
VARIANTS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in KINDS if kind != "head"},
    **{
        f"{kind}@{world}": {"kind": kind}
        for kind in KINDS
        for world in ("own", "pooled")
        if kind not in GENERATIVE
    },
    **{f"{kind}@pairs": {"kind": kind} for kind in KINDS if kind not in {*GENERATIVE, "head"}},
    "lora-dora@own": {"kind": "lora", "dora": True, "rank": 4},
    "lora-rslora": {"kind": "lora", "rslora": True, "rank": 4},
    "lora-dora": {"kind": "lora", "dora": True, "rank": 4},
    "lora-attention": {"kind": "lora", "targets": "attention", "alpha": 3},
    "lora-plus": {"kind": "lora", "plus_ratio": 16, "rank": 4},
    "lora-pattern": {"kind": "lora", "rank": 4, "rank_pattern": {"q_proj|c_attn": 2}},
    "lora-pissa": {"kind": "lora", "start": "pissa", "rank": 4},
    "lora-pissa-rslora": {"kind": "lora", "start": "pissa", "rank": 4, "rslora": True},
    "lora-pissa@own": {"kind": "lora", "start": "pissa", "rank": 4},
    "lora-pissa@pooled": {"kind": "lora", "start": "pissa", "rank": 4},
    "qlora-dora@wide": {"kind": "qlora", "dora": True, "rank": 4},
    "qlora-loftq": {"kind": "qlora", "start": "loftq", "rank": 4},
    "qlora-loftq@pooled": {"kind": "qlora", "start": "loftq", "rank": 4},
    "adapter-houlsby": {
        "kind": "adapter",
        "placement": "houlsby",
        "reduction_factor": 4,
        "activation": "gelu",
        "layer_norm": True,
    },
    "adapter-houlsby@own": {"kind": "adapter", "placement": "houlsby"},
    "adapter-houlsby@pairs": {"kind": "adapter", "placement": "houlsby"},
    "freeze-layers": {"kind": "freeze", "layers": 1},
    "freeze-last@own": {"kind": "freeze", "last": 1},
    "freeze-layers@pooled": {"kind": "freeze", "layers": 2},
    "freeze-layers@pairs": {"kind": "freeze", "layers": 1},
    "freeze-last@pairs": {"kind": "freeze", "last": 1},
    "freeze-pattern": {"kind": "freeze", "pattern": r"\.0\.|mlp|wte|embed"},
}
WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
#: Methods that begin as something else than the base, to float tolerance or not at all.
STARTED = [variant for variant in VARIANTS if "start" in VARIANTS[variant]]
#: Methods whose result no plain model computes.
UNMERGEABLE = {"prompt_tuning"}
#: Adapters that are no matrix, and so are part of no other.
UNMERGED = [variant for variant in VARIANTS if variant.startswith("adapter")]
MERGED = [variant for variant in VARIANTS if variant not in UNMERGED]


def build(variant: str) -> Method:
    method: Method = kinds.build("methods", kinds.config("methods", VARIANTS[variant]))
    return method


def batch(model: Any = None) -> Batch:
    if isinstance(model, EncoderDecoderModel):
        objective = kinds.build("objectives", kinds.config("objectives", "seq2seq"))
        codec = pairs.codec()
        return collate([objective.encode(each, codec) for each in pairs.records(3)])
    return collate([document(9, 1), tree(seed=2), document(14, 3)])


def logits(module: nn.Module) -> torch.Tensor:
    if head_names(module):
        with torch.no_grad():
            return class_scores(module)
    lm = language_model(module)
    with torch.no_grad():
        return lm.logits(lm.hidden(batch(lm)))


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
            lm = language_model(module)
            loss = lm.nll(batch(lm), lm.hidden(batch(lm)))
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
        case "pairs":
            return pairs.model("t5" if architecture == "llama" else "bart")
        case "wide":  # rows of whole blocks of four bits
            sizes = {**WIDE, **({"head_dim": 16} if architecture == "llama" else {})}
            return builders.tiny(architecture, **sizes)
    return builders.tiny(architecture)


def in_full(variant: str, module: Any, method: Method, folder: Path) -> Any:
    """A model on a quantised base becomes its adapter on the base in full, as an export does."""
    if variant in UNMERGEABLE:
        with pytest.raises(UserError, match="cannot be merged"):
            method.merge(module)
        with pytest.raises(UserError, match="start from their base"):
            build("full").prepare(module)
        pytest.skip("refused, as it should be")
    if not isinstance(method, QuantizedBase):
        return module
    with pytest.raises(UserError, match="quantised base"):
        method.merge(module)
    method.save(module, folder)
    plain = base(variant)
    inner = plain.trunk if hasattr(plain, "trunk") else plain
    loaded = PeftModel.from_pretrained(inner, str(folder), is_trainable=True)
    if inner is plain:
        return loaded
    plain.trunk = loaded
    plain.load_head(folder)
    return plain


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_law_5_at_step_0_model_reference_and_base_agree_bit_for_bit(
    variant: str, architecture: str
) -> None:
    plain, method = base(variant, architecture), build(variant)
    if isinstance(method, QuantizedBase) and method.quantize_on_load:
        quantize(plain, head_names(plain))
    expected = logits(plain)
    module = method.prepare(plain)
    method.keep_start(module)
    if variant in STARTED or variant in UNMERGEABLE:
        start = logits(module)
        # Of what rounding takes only a part is given back; vectors in front are read.
        covers = isinstance(method, QuantizedBase) or variant in UNMERGEABLE
        assert covers or gap(start, expected) < 1e-4
        expected = start
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
    settings = {**VARIANTS[variant], **({"dropout": 0.5} if "lora" in variant else {})}
    method: Method = kinds.build("methods", kinds.config("methods", settings))
    if variant.partition("@")[2] in ("own", "pooled"):
        module = method.prepare(classifiers.own("bert", hidden_dropout_prob=0.3))
    elif variant.endswith("@pairs"):
        module = method.prepare(pairs.model("t5", dropout_rate=0.3))
    else:
        sizes = WIDE if variant.endswith("@wide") else {}
        module = method.prepare(builders.tiny("gpt2", resid_pdrop=0.3, **sizes))
    method.keep_start(module)
    policy: Any = ClassifierModel(module) if head_names(module) else language_model(module)
    models = RunModels(policy, method)
    module.train()
    with models.reference() as reference:
        one, two = (reference.hidden(batch(policy)) for _ in range(2))
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
    if kind == "ia3":
        assert trained == {n for n in everything if ".ia3_" in n}
    if kind == "prompt_tuning":
        assert trained == {"prompt_encoder.default.embedding.weight"}
    if kind in ("lora", "qlora"):
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
def test_law_5_merged_is_the_adapter(variant: str, tmp_path: Path) -> None:
    method = build(variant)
    module = method.prepare(base(variant))
    train(module, method)
    module = in_full(variant, module, method, tmp_path)
    expected = logits(module)
    merged = method.merge(copy.deepcopy(module))
    assert gap(logits(merged), expected) < 1e-5
    assert {n for n, _ in merged.named_parameters()} == {
        n for n, _ in base(variant).named_parameters()
    }
    assert type(merged) is type(base(variant))


@pytest.mark.parametrize("variant", MERGED)
def test_a_merged_model_is_trained_from_where_it_stands(variant: str, tmp_path: Path) -> None:
    first, second = build(variant), build("full")
    module = first.prepare(base(variant))
    train(module, first)
    module = in_full(variant, module, first, tmp_path)
    expected = logits(module)
    full = second.prepare(module)
    second.keep_start(full)
    assert all(p.requires_grad for p in full.parameters())
    assert gap(logits(full), expected) < 1e-5
    train(full, second, 1)
    with second.reference(full):
        assert gap(logits(full), expected) < 1e-5


@pytest.mark.parametrize("variant", [each for each in VARIANTS if each not in GENERATIVE])
def test_the_frozen_trunk_never_changes(variant: str) -> None:
    method = build(variant)
    module = method.prepare(base(variant))
    depth = method.frozen_depth(module)
    assert 0 <= depth <= len(anatomy.blocks(module)) == (4 if "@pairs" in variant else 2)
    model: Any = ClassifierModel(module) if head_names(module) else language_model(module)
    if not depth:
        assert any(p.requires_grad for p in anatomy.blocks(module)[0].parameters()) or any(
            p.requires_grad
            for p in model.trunk.get_input_embeddings().parameters()  # type: ignore[operator]
        )
        return
    if model.divide(depth) is not None:
        assert variant == "freeze-layers@pairs", "half an encoder"
        return
    documents = collate([document(9, 1), document(14, 3)], **model.layout)
    given = batch(model) if "@pairs" in variant else documents
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
