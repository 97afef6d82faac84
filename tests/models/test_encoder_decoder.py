"""Encoder-decoders: packed is padded is transformers' own, one pair at a time."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import pairs
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.core import kinds
from luthier.core.errors import UserError
from luthier.core.records import Example, Segment
from luthier.data.batching import collate, empty_like
from luthier.engine.trunk_cache import Kept
from luthier.models.encoder_decoder import EncoderDecoderModel
from luthier.ops import anatomy

OBJECTIVE = kinds.build("objectives", kinds.config("objectives", "seq2seq"))


def examples(count: int = 6) -> list[Example]:
    codec = pairs.codec()
    return [OBJECTIVE.encode(record, codec) for record in pairs.records(count)]


def loss_and_gradients(
    module: Any, chosen: list[Example], **layout: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    model = EncoderDecoderModel(module)
    batch = collate(chosen, **{**model.layout, **layout})
    module.zero_grad(set_to_none=True)
    loss = model.nll(batch, model.hidden(batch))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), builders.gradients(module)


def transformers_own(module: Any, chosen: list[Example]) -> tuple[Tensor, dict[str, Tensor]]:
    """Each pair by itself through ``forward(input_ids, labels)``, summed over target tokens."""
    module.set_attn_implementation("sdpa")
    module.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64)
    for example in chosen:
        labels = torch.tensor(example.targets["lm"]["token"])[None]
        read = torch.tensor(example.segments[0].tokens)[None]
        fed = torch.tensor(example.segments[1].tokens)[None]
        loss = module(input_ids=read, decoder_input_ids=fed, labels=labels).loss * labels.numel()
        loss.backward()
        total += loss.detach()
    return total, builders.gradients(module)


@pytest.mark.parametrize("name", pairs.PACKED)
def test_law_1_packed_is_padded_is_transformers_own(name: str) -> None:
    module = pairs.model(name, torch.float64)
    assert EncoderDecoderModel(module).layout["layout"] == "packed"
    packed = loss_and_gradients(module, examples())
    padded = loss_and_gradients(module, examples(), layout="padded")
    own = transformers_own(module, examples())
    assert float(own[0]) > 10
    for loss, gradients in (packed, padded):
        assert builders.gap(loss, own[0]) < 1e-10
        assert builders.gap(gradients, own[1]) < 1e-10


@pytest.mark.parametrize("name", pairs.PADDED)
def test_what_cannot_be_packed_is_padded_and_exact(name: str) -> None:
    module = pairs.model(name, torch.float64)
    assert EncoderDecoderModel(module).layout["layout"] == "padded"
    padded, own = loss_and_gradients(module, examples()), transformers_own(module, examples())
    assert builders.gap(padded[0], own[0]) < 1e-10
    assert builders.gap(padded[1], own[1]) < 1e-10


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_law_1_no_pair_sees_another(name: str) -> None:
    module = pairs.model(name, torch.float64)
    model, chosen = EncoderDecoderModel(module), examples(3)
    first = chosen[0].segments
    read = Segment(first[0].tokens[::-1].copy(), stream="source")
    fed = Segment(np.concatenate([first[1].tokens[:1], first[1].tokens[:0:-1]]), source=0)
    other = Example((read, fed), chosen[0].targets, chosen[0].origin)
    size = len(first[1].tokens)
    with torch.no_grad():
        before = model.hidden(collate(chosen, **model.layout))
        after = model.hidden(collate([other, *chosen[1:]], **model.layout))
    assert builders.gap(before[:size], after[:size]) > 1e-3
    assert builders.gap(before[size:], after[size:]) < 1e-10


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_law_3_one_micro_batch_is_many(name: str) -> None:
    module = pairs.model(name, torch.float64)
    whole = loss_and_gradients(module, examples())
    singles = [loss_and_gradients(module, [example]) for example in examples()]
    total = {n: sum(g[n] for _, g in singles) for n in whole[1]}
    assert builders.gap(whole[0], torch.stack([loss for loss, _ in singles]).sum()) < 1e-10
    assert builders.gap(whole[1], total) < 1e-10


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_rows_filling_changes_nothing(name: str) -> None:
    module = pairs.model(name, torch.float64)
    plain = loss_and_gradients(module, examples())
    filled = loss_and_gradients(module, examples(), fill=64)
    assert builders.gap(plain[0], filled[0]) < 1e-10
    assert builders.gap(plain[1], filled[1]) < 1e-10


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_recomputed_activations_are_the_same(name: str) -> None:
    module = pairs.model(name, torch.float64).train()
    plain = loss_and_gradients(module, examples())
    module.gradient_checkpointing_enable({"use_reentrant": False})
    again = loss_and_gradients(module, examples())
    assert builders.gap(plain[1], again[1]) < 1e-10


def test_label_smoothing_is_torchs_own() -> None:
    model = EncoderDecoderModel(pairs.model("bart", torch.float64))
    batch = collate(examples(), **model.layout)
    table = batch.targets["lm"]
    with torch.no_grad():
        hidden = model.hidden(batch)
        found = model.nll(batch, hidden, smoothing=0.1)
        scores = model.logits(hidden[table["position"]])
        wanted = F.cross_entropy(scores, table["token"], reduction="sum", label_smoothing=0.1)
    assert builders.gap(found, wanted) < 1e-10


def test_a_bias_beside_the_head_counts() -> None:
    """BART's ``final_logits_bias`` is no parameter, and zero in most checkpoints."""
    module = pairs.model("bart", torch.float64)
    module.final_logits_bias += torch.linspace(-1, 1, module.final_logits_bias.shape[-1])
    ours, own = loss_and_gradients(module, examples()), transformers_own(module, examples())
    assert builders.gap(ours[0], own[0]) < 1e-10


def test_a_target_of_two_branches_reads_one_source() -> None:
    """Law 2: a target segment with two children is its two paths."""
    module = pairs.model("t5", torch.float64)
    model = EncoderDecoderModel(module)
    [example] = examples(1)
    read, fed = example.segments[0], example.segments[1].tokens
    lines = [np.concatenate([fed, extra]) for extra in (np.array([9, 8]), np.array([7, 6, 5]))]
    table = {"position": np.zeros(0, int), "token": np.zeros(0, int), "weight": np.zeros(0)}
    tree = (
        read,
        Segment(fed, source=0),
        Segment(np.array([9, 8]), parent=1, source=0),
        Segment(np.array([7, 6, 5]), parent=1, source=0),
    )
    paths = [(read, Segment(line, source=0)) for line in lines]
    with torch.no_grad():
        whole, *apart = (
            model.hidden(collate([Example(s, {"lm": table}, example.origin)], **model.layout))
            for s in (tree, *paths)
        )
    size = len(fed)
    assert builders.gap(whole[: size + 2], apart[0]) < 1e-10
    assert builders.gap(whole[size + 2 :], apart[1][size:]) < 1e-10


def test_what_a_decoder_starts_with() -> None:
    assert EncoderDecoderModel(pairs.model("t5")).start_token == 1
    assert EncoderDecoderModel(pairs.model("m2m_100")).start_token == 1
    mbart = EncoderDecoderModel(pairs.model("mbart", decoder_start_token_id=None))
    assert mbart.start_token is None, "the target's last token, its language"
    silent = EncoderDecoderModel(pairs.model("bart", decoder_start_token_id=None))
    with pytest.raises(UserError, match="does not say what its decoder starts with"):
        _ = silent.start_token


def test_a_head_that_is_not_understood_is_refused() -> None:
    module = pairs.model("bart")
    forward = module.forward

    def warmer(**inputs: Any) -> Any:
        out = forward(**inputs)
        out.logits = out.logits * 0.5
        return out

    module.forward = warmer
    with pytest.raises(UserError, match="works in a way that is not known"):
        _ = EncoderDecoderModel(module).layout


def held(model: EncoderDecoderModel, chosen: list[Example]) -> list[Example]:
    """Examples with their encoder's states, each computed in a batch of its own."""
    made = []
    with torch.no_grad():
        for example in chosen:
            states = model.lower(collate([example], **model.layout)).numpy()
            assert len(states) == len(example.segments[0].tokens)
            made.append(Kept("trunk", states, np.array([len(states)])).on(example, 0))
    return made


@pytest.mark.parametrize("name", [*pairs.PACKED, *pairs.PADDED])
@pytest.mark.parametrize("depth", [2, 3])
def test_law_6_a_decoder_on_kept_states_is_the_whole_model(name: str, depth: int) -> None:
    method: Any = kinds.build(
        "methods", kinds.config("methods", {"kind": "freeze", "layers": depth})
    )
    module = method.prepare(pairs.model(name, torch.float64))
    assert method.frozen_depth(module) == depth
    model = EncoderDecoderModel(module)
    assert model.divide(1) == "of an encoder-decoder only a whole encoder's output can be kept"
    assert model.divide(depth) is None
    calls: list[int] = []
    module.get_encoder().register_forward_pre_hook(lambda *_: calls.append(1))
    found = []
    for chosen in (examples(), held(model, examples())):
        calls.clear()
        batch = collate(chosen, **model.layout, fill=8)
        module.zero_grad(set_to_none=True)
        loss = model.nll(batch, model.hidden(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss.detach(), builders.gradients(module)))
    assert not calls, "the encoder computes"
    whole, kept = found
    assert builders.gap(whole[0], kept[0]) < 1e-10
    assert builders.gap(whole[1], kept[1]) < 1e-10
    assert whole[1], "nothing is trained"
    nothing = collate([empty_like(each) for each in held(model, examples(2))], **model.layout)
    assert model.hidden(nothing).shape[0] == 2


@pytest.mark.parametrize("name", ["t5", "bart", "mbart"])
def test_the_encoders_layers_are_the_lower_ones(name: str) -> None:
    """BART's norm of the embeddings is registered behind the blocks, and lies below them."""
    module = pairs.model(name)
    places = anatomy.places(module)
    assert len(anatomy.blocks(module)) == 4
    for parameter, place in places.items():
        if "relative_attention_bias" in parameter:
            assert place in (1, 3)
        elif "embed" in parameter or "shared" in parameter:
            assert place == 0, parameter
        elif "layers." not in parameter and "block." not in parameter:
            assert place == (2 if "encoder" in parameter else 5), parameter
        else:
            number = int(parameter.split("layers." if "layers." in parameter else "block.")[1][0])
            assert place == number + (1 if "encoder." in parameter else 3), parameter


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_only_what_lies_below_runs_without_dropout(name: str) -> None:
    module = pairs.model(name, **{"dropout_rate" if name == "t5" else "dropout": 0.3})
    method: Any = kinds.build("methods", kinds.config("methods", {"kind": "freeze", "layers": 2}))
    model = EncoderDecoderModel(method.prepare(module).train())
    batch = collate(examples(), **model.layout)
    assert torch.equal(model.lower(batch), model.lower(batch))
    assert not torch.equal(model.hidden(batch), model.hidden(batch))
    beside: Any = [stack.dropout for stack in (module.get_encoder(), module.get_decoder())]
    assert [getattr(each, "p", each) for each in beside] == [0.0, 0.3]
