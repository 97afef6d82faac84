"""Classifiers: packed is padded is the architecture's own forward pass; saved is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import classifiers
import numpy as np
import pytest
import torch
from torch import Tensor

from luthier.core.errors import UserError
from luthier.core.records import Example, Origin, Segment
from luthier.data.batching import Layout, collate
from luthier.models import heads
from luthier.models.heads import ClassifierModel, PooledClassifier
from luthier.models.load import load, save_note

ALL = [*classifiers.ENCODERS, "llama", "qwen2"]
POOLINGS = (None, "mean", "first", "last")


def texts(lengths: Sequence[int]) -> list[Example]:
    made = []
    for number, length in enumerate(lengths):
        table = {"segment": np.zeros(1, dtype=np.int64)}
        segment = Segment(builders.tokens(length, number) + 3)
        made.append(Example((segment,), {"classification": table}, Origin("t", number + 1)))
    return made


def scores(model: ClassifierModel, examples: Sequence[Example], layout: Layout) -> Tensor:
    batch = collate(examples, layout=layout, **model.layout)
    rows = model.pooled(batch, model.hidden(batch), batch.targets["classification"]["segment"])
    return model.outputs("classification", rows)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ALL)
def test_law_1_packed_is_padded_is_each_alone(name: str, pooling: str | None) -> None:
    model = classifiers.model(name, pooling, torch.float64)
    examples = texts([9, 4, 17, 4, 11])

    def of(chosen: Sequence[Example], layout: Layout) -> tuple[Tensor, dict[str, Tensor]]:
        model.module.zero_grad(set_to_none=True)
        found = scores(model, chosen, layout)
        (found * torch.arange(3)).sum().backward()  # type: ignore[no-untyped-call]
        return found.detach(), builders.gradients(model.module)

    packed, padded = of(examples, "packed"), of(examples, "padded")
    alone = [of([example], "padded") for example in examples]
    assert builders.gap(packed[0], padded[0]) < 1e-10
    assert builders.gap(packed[0], torch.cat([one for one, _ in alone])) < 1e-10
    assert builders.gap(packed[1], padded[1]) < 1e-9
    total = {n: sum(grads[n] for _, grads in alone) for n in packed[1]}
    assert builders.gap(packed[1], total) < 1e-9


@pytest.mark.parametrize("name", ALL)
def test_a_neighbour_changes_nothing(name: str) -> None:
    model = classifiers.model(name, None, torch.float64)
    examples = texts([9, 12, 5])
    other = [examples[0], texts([3, 30])[1], examples[2]]
    with torch.no_grad():
        one, two = (scores(model, chosen, "packed") for chosen in (examples, other))
    assert builders.gap(one[[0, 2]], two[[0, 2]]) < 1e-12
    assert builders.gap(one[1], two[1]) > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_the_own_head_gives_transformers_own_logits(name: str) -> None:
    model = classifiers.model(name)
    model.check()
    for example in texts([9, 4, 17]):
        with torch.no_grad():
            ours = scores(model, [example], "packed")
            model.module.set_attn_implementation("sdpa")
            theirs = model.module(input_ids=torch.tensor(example.segments[0].tokens)[None]).logits
        assert builders.gap(ours, theirs) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_pooling_is_what_it_says(pooling: str) -> None:
    model = classifiers.model("bert", pooling)
    examples = texts([5, 8, 3])
    batch = collate(examples, fill=32, **model.layout)
    with torch.no_grad():
        hidden = model.hidden(batch)
        found = model.pooled(batch, hidden, torch.tensor([2, 0]))
    parts = hidden.split([5, 8, 3])
    pick = {"mean": lambda x: x.mean(0), "first": lambda x: x[0], "last": lambda x: x[-1]}[pooling]
    assert builders.gap(found, torch.stack([pick(parts[2]), pick(parts[0])])) < 1e-6


def test_an_unknown_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifiers.model("bert")
    monkeypatch.setattr(heads, "own_head", lambda base, rows: base.classifier(rows))
    with pytest.raises(UserError, match="in a way that is not known"):
        model.check()


@pytest.mark.parametrize("name", list(classifiers.ENCODERS))
def test_a_pooled_classifier_comes_back_and_its_trunk_is_plain(name: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    module = classifiers.pooled(name, "mean")
    module.save_pretrained(tmp_path)
    again = PooledClassifier.from_pretrained(tmp_path).eval()
    assert again.pooling == "mean"
    example = texts([9])
    with torch.no_grad():
        ours = scores(ClassifierModel(module), example, "packed")
        assert torch.equal(scores(ClassifierModel(again), example, "packed"), ours)
    plain = AutoModel.from_pretrained(tmp_path).eval()
    tokens = torch.tensor(example[0].segments[0].tokens)[None]
    with torch.no_grad():
        pooled = plain(input_ids=tokens).last_hidden_state.mean(1)
    assert builders.gap(module.classifier(pooled), ours) < 1e-5


def folder(tmp_path: Path, module: Any) -> str:
    module.save_pretrained(tmp_path)
    builders.tokenizer().save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_folder_with_a_classifier_is_loaded_as_one(tmp_path: Path) -> None:
    loaded = load(folder(tmp_path, classifiers.own("distilbert")))
    assert isinstance(loaded.model, ClassifierModel)
    assert loaded.head is not None
    assert loaded.head.labels == classifiers.NAMES
    assert loaded.said == []


def test_other_classes_get_a_fresh_head_and_that_is_said(tmp_path: Path) -> None:
    name = folder(tmp_path, classifiers.own("bert"))
    old = load(name).model.module.classifier.weight
    wanted = classifiers.head()
    same = load(name, head=wanted).model.module.classifier.weight
    assert torch.equal(old, same)
    for labels in (("x", "y", "z"), ("x", "y")):
        changed = heads.Head("classification", len(labels), None, labels, "single_label")
        loaded = load(name, head=changed, seed=3)
        assert "own head is another" in loaded.said[0]
        weight = loaded.model.module.classifier.weight
        assert weight.shape[0] == len(labels)
        assert weight.shape != old.shape or builders.gap(weight, old) > 1e-3
        again = load(name, head=changed, seed=3).model.module.classifier.weight
        assert torch.equal(weight, again)


def test_a_sentence_encoder_pools_as_it_says(tmp_path: Path) -> None:
    name = folder(tmp_path, classifiers.pooled("bert", "mean").trunk)
    assert load(name, head=classifiers.head()).model.pooling == "first"
    (tmp_path / "1_Pooling").mkdir()
    said = '{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}'
    (tmp_path / "1_Pooling" / "config.json").write_text(said)
    model = load(name, head=classifiers.head()).model
    assert isinstance(model, ClassifierModel)
    assert model.pooling == "mean"


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropout_is_the_recipes(dropout: float, tmp_path: Path) -> None:
    from luthier.core.recipe import ModelSpec

    name = folder(tmp_path, classifiers.pooled("bert", "mean").trunk)
    spec = ModelSpec(name=name, dropout=dropout)
    module = load(spec, head=classifiers.head()).model.module
    found = {m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)}
    assert found == {dropout}


def test_an_adapter_of_other_classes_is_refused(tmp_path: Path) -> None:
    name = folder(tmp_path / "base", classifiers.own("bert"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        f'{{"base_model_name_or_path": "{name}", "peft_type": "LORA", "task_type": "SEQ_CLS"}}'
    )
    note = {"head": {"kind": "classification", "classes": 2, "labels": ["a", "b"]}}
    save_note(tmp_path / "adapter", note)
    with pytest.raises(UserError, match="other classes"):
        load(str(tmp_path / "adapter"), head=classifiers.head())
