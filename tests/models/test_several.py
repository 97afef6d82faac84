"""A trunk with several heads: gradients add up, layouts agree, every weight is there once."""

from __future__ import annotations

from pathlib import Path
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
from luthier.models.several import SeveralHeads, SeveralModel

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
    torch.stack([terms[name] / (weights[name] or 1.0) for name in terms]).sum().backward()
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


def test_a_row_teaches_the_head_of_its_own_task_alone() -> None:
    """Two tasks of one kind besides: nothing but the name tells their heads apart."""
    tasks = {"topic": "classification", "mood": "classification", "words": "token_classification"}
    objective, models = made("bert", tasks=tasks)
    policy: Any = models.policy
    examples = contract.encoded(objective)
    for task in tasks:
        gradients(objective, models, [e for e in examples if named(e.origin) == task])
        learnt = [
            name
            for name in tasks
            if any(
                p.grad is not None and p.grad.any() for p in policy.base.head_of(name).parameters()
            )
        ]
        assert learnt == [task]


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


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_saved_comes_back_to_the_last_bit(name: str, tmp_path: Path) -> None:
    objective = contract.build("objectives", "several")
    module = encoders.several(name, objective.heads[0].parts)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():  # so that nothing is as a fresh model has it
            parameter.add_(torch.randn_like(parameter))
    module.save_pretrained(tmp_path)
    found = SeveralHeads.from_pretrained(tmp_path)
    assert found.parts == module.parts
    kept, known = dict(found.named_parameters()), dict(module.named_parameters())
    assert kept.keys() == known.keys()
    assert all(torch.equal(kept[each], known[each]) for each in known)
