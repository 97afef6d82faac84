"""Bottleneck adapters: where they sit, that they begin as nothing, and several side by side."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import builders
import classifiers
import pairs
import pytest
import torch
from builders import document, gap, tree
from torch import Tensor, nn

from luthier.core.errors import UserError
from luthier.data.batching import collate
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import CausalModel
from luthier.ops import anatomy
from luthier.ops.bottleneck import CONFIG, WEIGHTS, Adapters, Bottleneck, Shape, sublayers

#: Architecture -> the output matrices of a block, written down from its source.
PLACES = {
    **dict.fromkeys(
        ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text"),
        ("self_attn.o_proj", "mlp.down_proj"),
    ),
    "phi": ("self_attn.dense", "mlp.fc2"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "bert": ("attention.output.dense", "output.dense"),
    "roberta": ("attention.output.dense", "output.dense"),
    "distilbert": ("attention.out_lin", "ffn.lin2"),
    "modernbert": ("attn.Wo", "mlp.Wo"),
}
HOULSBY = Shape("houlsby", 4.0, "gelu", True)


def model(name: str) -> Any:
    if name in builders.DECODERS:
        return CausalModel(builders.tiny(name, torch.float64).eval())
    return ClassifierModel(classifiers.own(name, torch.float64))


def awake(module: nn.Module, name: str, size: float = 0.5) -> None:
    """As if it had learned."""
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter in Adapters.of(module).parameters(name).values():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(size * noise)


def states(given: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = given.hidden(collate([document(9, 1), document(6, 2)], **given.layout))
    return found


@pytest.mark.parametrize("name", PLACES)
def test_they_sit_on_the_last_matrix_of_each_part(name: str) -> None:
    module = model(name).module
    block = anatomy.blocks(module)[0]
    names = {id(each): key for key, each in block.named_modules()}
    found = sublayers(block, 32)
    assert tuple(names[id(found[part])] for part in ("attention", "feed_forward")) == PLACES[name]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("shape", [Shape(), HOULSBY])
def test_one_begins_as_nothing_and_is_token_by_token(name: str, shape: Shape) -> None:
    """Law 5 bit for bit, law 1, and the formula by hand."""
    given = model(name)
    weights = {key: p.clone() for key, p in given.module.state_dict().items()}
    before = states(given)
    adapters = Adapters.of(given.module)
    adapters.add("new", shape)
    assert torch.equal(states(given), before), "nothing computes yet"
    adapters.activate("new")
    assert torch.equal(states(given), before)
    count = len(anatomy.blocks(given.module)) * (2 if shape.placement == "houlsby" else 1)
    assert sum(isinstance(m, Bottleneck) for m in given.module.modules()) == count
    awake(given.module, "new")
    packed = states(given)
    assert gap(packed, before) > 1e-3
    with torch.no_grad():
        single = [given.hidden(collate([document(*d)], **given.layout)) for d in ((9, 1), (6, 2))]
    assert gap(packed, torch.cat(single)) < 1e-4
    with adapters.disabled():
        assert torch.equal(states(given), before)
    assert torch.equal(states(given), packed)
    after = given.module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in weights.items())
    layer = Bottleneck(8, shape)
    nn.init.normal_(layer.up.weight)
    x = torch.randn(3, 8)
    inner = nn.functional.layer_norm(x, (8,)) if shape.layer_norm else x
    by_hand = nn.functional.gelu(inner @ layer.down.weight.T + layer.down.bias)
    assert gap(layer(x), x + by_hand @ layer.up.weight.T) < 1e-6


def test_trees_see_the_same_adapter() -> None:
    """Law 2 under an adapter: a tree of segments is its paths."""
    given = model("llama")
    Adapters.of(given.module).add("new", HOULSBY)
    Adapters.of(given.module).activate("new")
    awake(given.module, "new")
    example = tree(seed=3)
    with torch.no_grad():
        whole = given.hidden(collate([example]))
        padded = given.hidden(collate([example], layout="padded"))
    assert gap(whole, padded) < 1e-4


def test_several_are_switched_by_name_and_saved_alone(tmp_path: Path) -> None:
    given = model("bert")
    adapters = Adapters.of(given.module)
    assert Adapters.of(given.module) is adapters
    start = states(given)
    seen = {}
    for name in ("first", "second"):
        adapters.add(name, HOULSBY if name == "first" else Shape())
        adapters.activate(name)
        awake(given.module, name)
        seen[name] = states(given)
        adapters.save(tmp_path / name, name)
    assert gap(seen["first"], seen["second"]) > 1e-3
    files = sorted(p.name for p in (tmp_path / "first").iterdir())
    assert files == sorted([CONFIG, WEIGHTS])
    other = model("bert")
    for name in ("first", "second"):
        Adapters.of(other.module).load(tmp_path / name, name)
    assert torch.equal(states(other), start), "a loaded adapter computes once it is activated"
    for name in ("second", "first", "second"):
        Adapters.of(other.module).activate(name)
        assert torch.equal(states(other), seen[name])
    twin = copy.deepcopy(other.module)
    Adapters.of(twin).deactivate()
    assert torch.equal(states(ClassifierModel(twin)), start)
    assert torch.equal(states(other), seen["second"]), "a copy has adapters of its own"
    Adapters.of(other.module).remove("second")
    assert torch.equal(states(other), start)


def test_each_comes_with_its_head_and_its_classes(tmp_path: Path) -> None:
    module = classifiers.own("bert")
    adapters = Adapters.of(module)
    names = {"moods": classifiers.NAMES, "sizes": ("small", "medium", "large")}
    heads = {}
    for name, classes in names.items():
        adapters.add(name, Shape())
        adapters.activate(name)
        module.config.id2label = dict(enumerate(classes))
        nn.init.normal_(module.classifier.weight)
        heads[name] = module.classifier.weight.detach().clone()
        adapters.save(tmp_path / name, name)
    fresh = Adapters.of(classifiers.own("bert"))
    for name in names:
        fresh.load(tmp_path / name, name)
    for each in (adapters, fresh):
        for name in ("sizes", "moods"):
            each.activate(name)
            inner: Any = each._model
            assert torch.equal(inner.classifier.weight, heads[name])
            assert tuple(inner.config.id2label.values()) == names[name]
    with pytest.raises(UserError, match="head of 3 outputs, and this model has 2"):
        Adapters.of(classifiers.own("bert", classes=2)).load(tmp_path / "moods")


def test_names_shapes_and_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    given = model("llama")
    adapters = Adapters.of(given.module)
    adapters.add("one", Shape())
    for name in ("one", "a.b", ""):
        with pytest.raises(UserError, match="name"):
            adapters.add(name, Shape())
    with pytest.raises(UserError, match="did you mean 'one'"):
        adapters.activate("ones")
    adapters.save(tmp_path, "one")
    small = CausalModel(builders.tiny("llama", num_hidden_layers=1))
    with pytest.raises(UserError, match="does not fit its base"):
        Adapters.of(small.module).load(tmp_path)
    assert not Adapters.of(small.module).shapes, "nothing is left behind"
    wide = CausalModel(builders.tiny("llama", hidden_size=64))
    with pytest.raises(UserError, match="does not fit its base"):
        Adapters.of(wide.module).load(tmp_path)
    settings = json.loads((tmp_path / CONFIG).read_text())
    settings["shape"]["activation"] = None
    (tmp_path / CONFIG).write_text(json.dumps({"shape": {"no": 1}}))
    with pytest.raises(UserError, match="can be read"):
        Adapters.of(model("llama").module).load(tmp_path)


@pytest.mark.parametrize("name", [*pairs.PACKED, *pairs.PADDED])
def test_an_encoder_decoder_has_them_in_both_stacks(name: str) -> None:
    module = pairs.model(name)
    adapters = Adapters.of(module)
    adapters.add("new", HOULSBY)
    found = [sublayers(block, 32) for block in anatomy.blocks(module)]
    assert [len(each) for each in found] == [2, 2, 3, 3]
    assert all(list(each)[-1] == "feed_forward" for each in found)
    assert sum(isinstance(m, Bottleneck) for m in module.modules()) == 2 * 2 + 2 * 3
    names = {id(each): key for key, each in module.named_modules()}
    for own in found[2:]:
        first, cross = (names[id(own[each])].lower() for each in ("attention", "cross_attention"))
        assert "encdec" in cross or "encoder_attn" in cross
        assert "self" in first


def test_blocks_of_another_build_are_refused() -> None:
    """Experts, three attentions, and a block without any."""

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn1, self.attn2, self.attn3 = (nn.Linear(32, 32) for _ in range(3))
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.Linear(32, 32)
            self.experts = nn.ModuleList([nn.Linear(32, 32) for _ in range(2)])

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    for block in (Mixed(), Plain(), Three()):
        with pytest.raises(UserError, match="where adapters belong is not known"):
            sublayers(block, 32)
