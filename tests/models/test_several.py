"""A trunk with several heads: gradients add up, layouts agree, every weight is there once."""

from __future__ import annotations

from typing import Any

import builders
import encoders
import pytest
import torch
from objectives import test_contract as contract

from luthier.core import kinds
from luthier.core.contracts_tasks import named
from luthier.data.batching import collate
from luthier.models.run_models import RunModels
from luthier.models.several import SeveralModel

ARCHITECTURES = ("bert", "roberta", "distilbert", "modernbert")


def made(name: str, **settings: Any) -> tuple[Any, RunModels]:
    objective = contract.build("objectives", "several", **settings)
    module = encoders.several(name, objective.heads[0].parts, torch.float64)
    method = kinds.build("methods", kinds.config("methods", "full"))
    return objective, RunModels(SeveralModel(method.prepare(module).eval()), method)


def gradients(objective: Any, models: RunModels, examples: Any, own: Any = None) -> Any:
    """Of the trunk, of one step; ``own`` is a task that stands alone on its head."""
    policy: Any = models.policy
    policy.module.zero_grad()
    task, model = (objective, models) if own is None else (objective.tasks[own], None)
    if own is not None:
        examples = [objective.own(each)[1] for each in examples if named(each.origin) == own]
        model = RunModels(policy.view(own), models._method)
    batch = collate(examples, **policy.layout)
    weights, terms = task.weights(batch), task.loss(model, batch)
    torch.stack([terms[name] / weights[name] for name in terms]).sum().backward()
    found = {n: p.grad for n, p in policy.trunk.named_parameters() if p.grad is not None}
    return {name: each.clone() for name, each in found.items()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_trunks_gradient_is_the_sum_of_the_tasks_own(name: str) -> None:
    objective, models = made(name)
    examples = contract.encoded(objective)
    whole = gradients(objective, models, examples)
    apart = [gradients(objective, models, examples, task) for task in objective.tasks]
    assert len(apart) == 2
    for parameter, found in whole.items():
        total = sum(each[parameter] for each in apart)
        assert builders.gap(found, total) < 1e-10
        assert all(each[parameter].abs().sum() > 0 for each in apart) or not found.any()


def test_a_coefficient_is_a_factor_on_its_tasks_terms_alone() -> None:
    (plain, models), (heavy, _) = made("bert"), made("bert", weights={"topic": 3.0})
    examples = contract.encoded(plain)
    batch = collate(examples, **models.policy.layout)
    with torch.no_grad():
        one, three = plain.loss(models, batch), heavy.loss(models, batch)
    assert plain.weights(batch) == heavy.weights(batch)
    for name, term in one.items():
        factor = 3.0 if name.startswith("topic.") else 1.0
        assert float(three[name]) == pytest.approx(factor * float(term), rel=1e-12)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_law_1_packed_is_padded_for_every_head(name: str) -> None:
    objective, models = made(name)
    examples = contract.encoded(objective)
    terms = []
    for layout in ("packed", "padded"):
        batch = collate(examples, layout=layout, **models.policy.layout)
        with torch.no_grad():
            terms.append(objective.loss(models, batch))
    assert terms[0].keys() == terms[1].keys()
    for term, value in terms[0].items():
        assert float(value) == pytest.approx(float(terms[1][term]), abs=1e-9)


def test_every_weight_is_there_once_and_the_trunk_runs_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective, models = made("bert")
    policy: Any = models.policy
    names = [name for name, _ in policy.module.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names))
    assert sum(name.endswith("word_embeddings.weight") for name in names) == 1
    calls: list[int] = []
    policy.trunk.register_forward_hook(lambda *_: calls.append(1))
    objective.loss(models, collate(contract.encoded(objective), **policy.layout))
    assert len(calls) == 1
