"""Law 6 of a partly frozen trunk: the upper layers on kept states are the whole trunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import builders
import classifiers
import encoders
import pytest
import torch
from builders import document, gap, tree
from torch import Tensor

from luthier.core import kinds
from luthier.core.records import Batch, Example
from luthier.data.batching import collate, empty_like
from luthier.engine.trunk_cache import Kept, obstacle
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import CausalModel
from luthier.models.token_heads import TaggerModel
from luthier.ops import anatomy

LAYERS = 3
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]


def decoder(name: str, **method: Any) -> CausalModel:
    """A decoder of three layers, prepared, in float64."""
    more: dict[str, Any] = {"layer_types": TYPES} if name == "gemma3_text" else {}
    module = builders.tiny(name, torch.float64, num_hidden_layers=LAYERS, **more)
    return CausalModel(freeze(**method).prepare(module))


def freeze(**settings: Any) -> Any:
    return kinds.build("methods", kinds.config("methods", {"kind": "freeze", **settings}))


def held(model: Any, examples: Sequence[Example], depth: int) -> list[Example]:
    """Examples with their states, each computed in a batch of its own."""
    model.divide(depth)
    made = []
    with torch.no_grad():
        for example in examples:
            states = model.lower(collate([example], **model.layout)).numpy()
            assert len(states) == example.size
            made.append(Kept("trunk", states, torch.tensor([example.size]).numpy()).on(example, 0))
    return made


def learned(model: Any, batch: Batch, loss: Callable[[Any, Batch], Tensor]) -> tuple[Any, Any]:
    model.module.zero_grad(set_to_none=True)
    found = loss(model, batch)
    found.backward()  # type: ignore[no-untyped-call]
    return found.detach(), builders.gradients(model.module)


def spoken(model: CausalModel, batch: Batch) -> Tensor:
    return model.nll(batch, model.hidden(batch))


def classed(model: ClassifierModel, batch: Batch) -> Tensor:
    table = batch.targets["classification"]
    rows = model.pooled(batch, model.hidden(batch), table["segment"])
    return torch.nn.functional.cross_entropy(model.outputs("classification", rows), table["label"])


def compare(
    model: Any,
    examples: Sequence[Example],
    depth: int,
    loss: Any,
    bound: float,
    layers: int = LAYERS,
) -> None:
    whole = learned(model, collate(examples, **model.layout), loss)
    upper = held(model, examples, depth)
    calls: list[int] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, i=i: calls.append(i))
        for i, block in enumerate(anatomy.blocks(model.module))
        for module in block.modules()
        if module is not block and any(True for _ in module.parameters(recurse=False))
    ]
    kept = learned(model, collate(upper, **model.layout), loss)
    for handle in handles:
        handle.remove()
    assert set(calls) == set(range(depth, layers)), "a frozen block computes"
    assert gap(whole[0], kept[0]) < bound
    assert gap(whole[1], kept[1]) < bound
    assert whole[1], "nothing is trained"
    assert not any("forward" in vars(block) for block in anatomy.blocks(model.module))


@pytest.mark.parametrize("name", builders.DECODERS)
@pytest.mark.parametrize("depth", [1, 2])
def test_law_6_of_decoders(name: str, depth: int) -> None:
    """Trees, neighbours, positions and windows: all that a packed row says reaches the top."""
    model = decoder(name, layers=depth)
    examples = [document(13, 1), tree(seed=2), document(9, 3), document(9, 4)]
    # Some norms compute in float32 whatever they are given, and feel the order of sums.
    compare(model, examples, depth, spoken, 1e-10 if name in ("gpt2", "phi", "gpt_neox") else 1e-5)


@pytest.mark.parametrize("name", [*classifiers.ENCODERS, "llama"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pooling", [None, "mean"])
def test_law_6_of_classifiers(name: str, depth: int, pooling: str | None) -> None:
    layers = "n_layers" if name == "distilbert" else "num_hidden_layers"
    if pooling is None:
        module = classifiers.own(name, torch.float64, **{layers: LAYERS})
    else:
        module = classifiers.pooled(name, pooling, torch.float64, **{layers: LAYERS})
    model = ClassifierModel(freeze(last=LAYERS - depth).prepare(module))
    objective: Any = kinds.build("objectives", kinds.config("objectives", "classification"))
    objective = objective.settled(classifiers.labelled(6), classifiers.NAMES)
    codec = builders.codec()
    examples = [objective.encode(record, codec) for record in classifiers.labelled(5)]
    bound = 1e-5 if name == "llama" else 1e-10
    compare(model, examples, depth, classed, bound)


def tagged(model: Any, batch: Batch) -> Tensor:
    table = batch.targets["token_classification"]
    rows = model.pooled(batch, model.hidden(batch), table["position"])
    return model.outputs("token_classification", rows).square().sum()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", classifiers.ENCODERS)
def test_law_6_of_words(name: str) -> None:
    """Taggers read single tokens."""
    module = encoders.tagging(name, torch.float64)
    model = TaggerModel(freeze(layers=1).prepare(module))
    objective: Any = kinds.build("objectives", kinds.config("objectives", "token_classification"))
    objective = objective.settled(encoders.sentences(5), ())
    codec = encoders.codec()
    examples = [objective.encode(record, codec) for record in encoders.sentences(5)]
    compare(model, examples, 1, tagged, 1e-10, layers=2)


def test_all_layers_frozen_leaves_the_norm_and_the_head() -> None:
    model = decoder("llama", layers=LAYERS)
    trained = {n for n, p in model.module.named_parameters() if p.requires_grad}
    assert trained == {"model.norm.weight", "lm_head.weight"}
    compare(model, [document(7, 1), document(5, 2)], LAYERS, spoken, 1e-5)


def test_a_batch_without_states_runs_the_whole_trunk() -> None:
    model = decoder("llama", layers=2)
    batch = collate([document(7, 1), tree(seed=2)])
    before = model.hidden(batch)
    held(model, [document(7, 1)], 2)
    assert torch.equal(model.hidden(batch), before)


def test_work_for_nobody_and_a_filled_row() -> None:
    """A rank without work runs a token without states; rows may be longer than their tokens."""
    model = decoder("llama", layers=2)
    [example] = held(model, [document(7, 1)], 2)
    idle = collate([empty_like(example)])
    assert spoken(model, idle).item() == 0
    plain = learned(model, collate([example]), spoken)
    filled = learned(model, collate([example], fill=16), spoken)
    assert gap(plain[0], filled[0]) < 1e-6
    assert gap(plain[1], filled[1]) < 1e-6


def test_wrong_positions_would_be_seen() -> None:
    """What the comparison is worth: upper layers that forget where their tokens stood."""
    model = decoder("llama", layers=1)
    whole = model.hidden(collate([document(9, 1)]))
    batch = collate(held(model, [document(9, 1)], 1))
    assert gap(model.hidden(batch), whole) < 1e-5
    batch.positions[:] = 0
    assert gap(model.hidden(batch), whole) > 1e-2


@pytest.mark.parametrize(
    ("name", "dropout"),
    [("gpt2", "resid_pdrop"), ("gpt2", "embd_pdrop"), ("llama", "attention_dropout")],
)
def test_dropout_below_is_switched_off_and_above_is_not(name: str, dropout: str) -> None:
    module = builders.tiny(name, num_hidden_layers=LAYERS, **{dropout: 0.5})
    free = CausalModel(module.requires_grad_(False))
    free.divide(2)
    batch = collate([document(20, 1)])
    assert "chance" in str(obstacle(free.module, free.lower, batch)[0])
    model = CausalModel(freeze(layers=2).prepare(module))
    model.divide(2)
    assert obstacle(model.module, model.lower, batch)[0] is None
    model.module.train()
    one, two = (model.hidden(batch) for _ in range(2))
    assert torch.equal(one, two) == (dropout == "embd_pdrop"), "the layers above still drop"


def test_what_is_trained_below_is_found_out() -> None:
    model = decoder("llama", layers=1)
    model.divide(2)
    batch = collate([document(9, 1)])
    assert "trained" in str(obstacle(model.module, model.lower, batch)[0])
    model.divide(1)
    assert obstacle(model.module, model.lower, batch)[0] is None


def test_chance_that_no_setting_names_is_found_out() -> None:
    """Noise on the embeddings, as NEFTune adds: no dropout layer, no number to set to 0."""
    model = decoder("llama", layers=1)
    model.divide(1)
    table = model.trunk.get_input_embeddings()  # type: ignore[operator]
    table.register_forward_hook(
        lambda module, _, out: out + torch.randn_like(out) if module.training else out
    )
    assert "chance" in str(obstacle(model.module, model.lower, collate([document(9, 1)]))[0])
