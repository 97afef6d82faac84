"""Law 6: a cached trunk gives what the trunk itself gives, and is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import classifiers
import encoders
import numpy as np
import pytest
import torch

from luthier.core import kinds
from luthier.data.batching import collate, micro_batches
from luthier.data.store import ExampleStore
from luthier.engine import trunk_cache
from luthier.engine.trunk_cache import (
    CachedTrunk,
    Kept,
    KeptExamples,
    kept,
    pooling,
    shape_key,
    trunk_key,
)
from luthier.models.heads import ClassifierModel
from luthier.models.run_models import RunModels
from luthier.models.token_heads import TaggerModel

KINDS = [
    (name, pooling)
    for name in ("bert", "roberta", "distilbert", "modernbert", "llama")
    for pooling in (None, "mean")
]


def parts(name: str, pooling: str | None) -> tuple[Any, ClassifierModel, ExampleStore]:
    objective: Any = kinds.build("objectives", kinds.config("objectives", "classification"))
    records = classifiers.labelled(7)
    objective = objective.settled(records, classifiers.NAMES)
    method = kinds.build("methods", kinds.config("methods", "head"))
    given = classifiers.model(name, pooling, torch.float64)
    model = ClassifierModel(method.prepare(given.module))
    codec = builders.codec()
    return objective, model, ExampleStore.build(objective.encode(r, codec) for r in records)


def tagging(name: str) -> tuple[Any, TaggerModel, ExampleStore]:
    """The same for words."""
    objective: Any = kinds.build("objectives", kinds.config("objectives", "token_classification"))
    records = encoders.sentences(7)
    objective = objective.settled(records, ())
    method = kinds.build("methods", kinds.config("methods", "head"))
    model = TaggerModel(method.prepare(encoders.tagging(name, torch.float64)))
    codec = encoders.codec()
    return objective, model, ExampleStore.build(objective.encode(r, codec) for r in records)


def computed(model: Any, store: ExampleStore, place: Path, head: str = "classification") -> Kept:
    return kept(
        store,
        head,
        store.arrays[f"rows.{head}"],
        pooling(model, head),
        model.module,
        lambda sizes: micro_batches(sizes, 40),
        lambda chosen: collate(chosen, **model.layout),
        place,
    )


def graded(objective: Any, policy: Any, examples: Any, model: Any) -> Any:
    model.module.zero_grad(set_to_none=True)
    batch = collate(examples, **model.layout)
    [loss] = objective.loss(RunModels(policy, None), batch).values()  # type: ignore[arg-type]
    loss.backward()
    found = {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    return loss.detach(), found


@pytest.mark.parametrize(("name", "pooling"), KINDS)
def test_law_6_cached_is_uncached(name: str, pooling: str | None, tmp_path: Path) -> None:
    objective, model, store = parts(name, pooling)
    found = computed(model, store, tmp_path / "rows")
    assert found.rows.shape == (7, 32)
    cached = KeptExamples(store, found)
    policy = CachedTrunk(model, "classification")
    chosen = [4, 1, 6]
    one = graded(objective, model, [store[i] for i in chosen], model)
    two = graded(objective, policy, [cached[i] for i in chosen], model)
    assert builders.gap(one[0], two[0]) < 1e-10
    assert builders.gap(one[1], two[1]) < 1e-10
    assert one[1], "a head without parameters"


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_law_6_cached_words_are_uncached_words(name: str, tmp_path: Path) -> None:
    objective, model, store = tagging(name)
    head = "token_classification"
    found = computed(model, store, tmp_path / "rows", head)
    assert found.rows.shape == (store.rows(head), 32)
    cached = KeptExamples(store, found)
    chosen = [4, 1, 6]
    one = graded(objective, model, [store[i] for i in chosen], model)
    two = graded(objective, CachedTrunk(model, head), [cached[i] for i in chosen], model)
    assert builders.gap(one[0], two[0]) < 1e-10
    assert builders.gap(one[1], two[1]) < 1e-10
    assert one[1], "a head without parameters"


def test_the_trunk_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, store = parts("bert", "mean")
    first = np.array(computed(model, store, tmp_path / "rows").rows)

    def never(*_args: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(trunk_cache, "_compute", never)
    assert np.array_equal(computed(model, store, tmp_path / "rows").rows, first)
    with pytest.raises(AssertionError, match="computed again"):
        computed(model, store, tmp_path / "other")


def test_other_weights_have_another_key() -> None:
    _, model, _ = parts("bert", "mean")
    module: Any = model.module
    key = trunk_key(module)
    with torch.no_grad():
        module.classifier.weight.add_(1)
    assert trunk_key(module) == key, "the head is no part of the trunk"
    with torch.no_grad():
        module.trunk.encoder.layer[0].output.dense.bias.add_(1e-3)
    assert trunk_key(module) != key


def test_another_architecture_has_another_key() -> None:
    """A rotary base or a window changes no weight; the classes change no state."""
    same = classifiers.config("modernbert")
    key = shape_key(same)
    assert shape_key(classifiers.config("modernbert", classes=2)) == key
    assert shape_key(classifiers.config("modernbert", local_attention=8)) != key


@pytest.mark.parametrize("name", ["bert", "modernbert", "distilbert"])
def test_a_frozen_trunk_has_no_dropout(name: str, tmp_path: Path) -> None:
    """Activations of a trunk that drops some at random could not be cached."""
    module = classifiers.own(name, **{"attention_dropout": 0.5} if name == "distilbert" else {})
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.5
    method = kinds.build("methods", kinds.config("methods", "head"))
    model = ClassifierModel(method.prepare(module).train())
    _, _, store = parts(name, None)
    batch = collate([store[0], store[1]], **model.layout)
    with torch.no_grad():
        one, two = (model.hidden(batch) for _ in range(2))
    assert torch.equal(one, two)
