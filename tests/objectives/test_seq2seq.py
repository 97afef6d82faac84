"""Sequence to sequence: transformers' own loss, whole and step by step, and what is learned."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import pairs
import pytest
import torch

from luthier.core import kinds
from luthier.core.errors import DataError
from luthier.core.records import Example, Origin, SourceTarget
from luthier.data.batching import collate
from luthier.models.encoder_decoder import EncoderDecoderModel
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels


def objective(**settings: Any) -> Any:
    return kinds.build("objectives", kinds.config("objectives", {"kind": "seq2seq", **settings}))


def value(chosen: Any, model: Any, examples: list[Example]) -> float:
    batch = collate(examples, **model.layout)
    models = RunModels(model, kinds.build("methods", kinds.config("methods", "full")))
    [(name, term)] = chosen.loss(models, batch).items()
    return float(term.detach()) / chosen.weights(batch)[name]


@pytest.mark.parametrize("name", ["t5", "bart", "pegasus"])
def test_the_loss_is_the_labels_loss_of_transformers(name: str) -> None:
    """One padded batch with ``labels``, -100 where there is padding, as its collator makes it."""
    module, plain = pairs.model(name, torch.float64), pairs.tokenizer()
    records = pairs.records()
    given = plain([r.source for r in records], padding=True, return_tensors="pt")
    labels = plain(text_target=[r.target for r in records], padding=True, return_tensors="pt")
    wanted = labels.input_ids.masked_fill(labels.attention_mask == 0, -100)
    with torch.no_grad():
        own = module(
            input_ids=given.input_ids, attention_mask=given.attention_mask, labels=wanted
        ).loss
    examples = [objective().encode(record, pairs.codec()) for record in records]
    assert value(objective(), EncoderDecoderModel(module), examples) == pytest.approx(
        float(own), abs=1e-10
    )


def test_what_is_learned_is_the_target_and_its_end_token() -> None:
    codec = pairs.codec()
    for record in pairs.records():
        example = objective().encode(record, codec)
        written = example.targets["lm"]["token"].tolist()
        assert codec.decode(written, special=True) == f"{record.target}<|endoftext|>"
        first = len(example.segments[0].tokens)
        assert example.targets["lm"]["position"].tolist() == list(
            range(first, first + len(written))
        )
        assert [segment.stream for segment in example.segments] == ["source", "main"]


def test_a_causal_model_learns_the_target_alone_in_its_own_template() -> None:
    codec, [record] = builders.codec(), pairs.records(1)
    example = objective().encode(record, codec)
    asked, written = (codec.decode(s.tokens, special=True) for s in example.segments)
    assert asked == f"<|user|>{record.source}<|end|><|assistant|>"
    assert written == f"{record.target}<|end|>"
    assert example.segments[1].parent == 0
    assert example.targets["lm"]["token"].tolist() == example.segments[1].tokens.tolist()
    assert example.targets["lm"]["position"][0] == len(example.segments[0].tokens) - 1


def test_a_causal_models_loss_is_that_of_one_sequence() -> None:
    module = builders.talking(len(builders.tokenizer())).double().eval()
    codec = builders.codec()
    examples = [objective().encode(record, codec) for record in pairs.records()]
    total = count = 0.0
    module.set_attn_implementation("sdpa")
    for example in examples:
        asked, written = (torch.tensor(s.tokens) for s in example.segments)
        labels = torch.cat([torch.full_like(asked, -100), written])
        with torch.no_grad():
            loss = module(input_ids=torch.cat([asked, written])[None], labels=labels[None]).loss
        total, count = total + float(loss) * len(written), count + len(written)
    found = value(objective(), CausalModel(module), examples)
    # transformers takes the logits to float32 first
    assert found == pytest.approx(total / count, abs=1e-7)


@pytest.mark.parametrize("field", ["source", "target"])
def test_an_empty_side_is_refused_with_its_line(field: str) -> None:
    said = {"source": "a", "target": "b", field: "  "}
    with pytest.raises(DataError, match=f"the {field} is empty") as refused:
        objective().encode(SourceTarget(Origin("rows.tsv", 7), **said), pairs.codec())
    assert refused.value.faults[0].place == "rows.tsv:7"


def test_steps_are_those_of_a_plain_loop_of_transformers() -> None:
    """Ten steps in float64 with AdamW: packed rows here, a padded batch with labels there."""
    records = pairs.records(12)
    plain, codec = pairs.tokenizer(), pairs.codec()
    ours, theirs = (pairs.model("t5", torch.float64) for _ in range(2))
    model = EncoderDecoderModel(ours)
    chosen = objective()
    examples = [chosen.encode(record, codec) for record in records]
    models = RunModels(model, kinds.build("methods", kinds.config("methods", "full")))
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3) for m in (ours, theirs)]
    theirs.set_attn_implementation("sdpa")
    for step in range(10):
        picked = np.random.default_rng(step).permutation(12)[:5]
        batch = collate([examples[i] for i in picked], **model.layout)
        loss = chosen.loss(models, batch)["nll"] / chosen.weights(batch)["nll"]
        given = plain([records[i].source for i in picked], padding=True, return_tensors="pt")
        target = plain(text_target=[records[i].target for i in picked], padding=True)
        labels = torch.tensor(target.input_ids)
        labels = labels.masked_fill(torch.tensor(target.attention_mask) == 0, -100)
        own = theirs(
            input_ids=given.input_ids, attention_mask=given.attention_mask, labels=labels
        ).loss
        assert float(loss.detach()) == pytest.approx(float(own.detach()), abs=1e-9)
        for each, optimizer in zip((loss, own), optimizers, strict=True):
            optimizer.zero_grad()
            each.backward()
            optimizer.step()
