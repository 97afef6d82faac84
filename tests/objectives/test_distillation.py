"""What a student's loss is, by hand: temperature, its square, the share of the labels."""

from __future__ import annotations

from typing import Any

import builders
import classifiers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stand_in import annotated, informed, models_of, nudge, origin
from torch import Tensor

from luthier.core import kinds
from luthier.core.errors import UserError
from luthier.core.records import Conversation, Labelled, Text, Turn
from luthier.data.batching import collate
from luthier.methods.full import Config as Full
from luthier.methods.full import Method
from luthier.models.heads import ClassifierModel
from luthier.models.language_model import CausalModel
from luthier.models.run_models import RunModels

T, ALPHA = 2.5, 0.3


def build(kind: str, **settings: Any) -> Any:
    words = {**builders.settings("objectives", kind), "temperature": T, "alpha": ALPHA, **settings}
    return kinds.build("objectives", kinds.config("objectives", words))


def speaker(**changes: Any) -> Any:
    return builders.talking(len(builders.tokenizer()), **changes).double()


def test_a_language_models_loss_is_hintons() -> None:
    teacher = CausalModel(speaker(hidden_size=48, num_hidden_layers=1).eval().requires_grad_(False))
    models = models_of(speaker(), "full", {"teacher": teacher})
    width = len(builders.tokenizer())
    objective = build("distillation", top_k=width)
    plain = [objective.encode(c, builders.codec()) for c in builders.conversations(3)]
    plain.append(objective.encode(Text(origin(9), builders.SENTENCES[0]), builders.codec()))
    batch = collate(annotated(objective, models, plain))
    found = objective.loss(models, batch)
    table = batch.targets["lm"]

    def logits(model: Any) -> Tensor:
        return model.logits(model.hidden(batch)[table["position"]]).double()

    p, q = ((logits(m) / T).log_softmax(-1) for m in (teacher, models.policy))
    kl = (p.exp() * (p - q)).sum()
    nll = F.cross_entropy(logits(models.policy), table["token"], reduction="sum")
    assert found["distillation"].item() == pytest.approx(ALPHA * T**2 * kl.item(), rel=1e-6)
    assert found["nll"].item() == pytest.approx((1 - ALPHA) * nll.item(), rel=1e-6)
    assert objective.weights(batch)["nll"] == len(table["token"])


def scores(model: Any, batch: Any) -> Tensor:
    table = batch.targets["classification"]
    pooled = model.pooled(batch, model.hidden(batch), table["segment"])
    return model.outputs("classification", pooled)


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_a_classifiers_loss_is_hintons_and_a_text_alone_has_the_teachers_part(
    problem: str,
) -> None:
    names = classifiers.NAMES
    settings = {"classes": list(names), "problem_type": problem}
    objective = build("classifier_distillation", **settings)
    several = problem == "multi_label"
    rows: list[Any] = [
        Labelled(r.origin, r.text, (r.label, names[0]) if several else r.label)
        for r in classifiers.labelled(3)
    ]
    rows.append(Text(origin(9), "nobody knows"))
    teacher = ClassifierModel(classifiers.own("llama", torch.float64))
    nudge(teacher.module, 0.3)
    teacher.module.requires_grad_(False)
    method = Method(Full())
    policy = ClassifierModel(method.prepare(classifiers.own("llama", torch.float64)))
    models = RunModels(policy, method, {"teacher": teacher})
    examples = annotated(objective, models, [objective.encode(r, builders.codec()) for r in rows])
    batch = collate(examples)
    found, weights = objective.loss(models, batch), objective.weights(batch)
    assert weights == {"distillation": 4.0, "classification": 3.0}
    z, s = scores(teacher, batch), scores(policy, batch)
    if several:
        p, q = (z / T).sigmoid(), (s / T).sigmoid()
        kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1).sum()
        wanted = torch.tensor(
            [[float(n in r.label) for n in names] for r in rows[:3]], dtype=torch.float64
        )
        hard = F.binary_cross_entropy_with_logits(s[:3], wanted, reduction="none").mean(1).sum()
    else:
        p, q = (z / T).log_softmax(-1), (s / T).log_softmax(-1)
        kl = (p.exp() * (p - q)).sum()
        labels = torch.tensor([names.index(r.label) for r in rows[:3]])
        hard = F.cross_entropy(s[:3], labels, reduction="sum")
    assert found["distillation"].item() == pytest.approx(ALPHA * T**2 * kl.item(), rel=1e-9)
    assert found["classification"].item() == pytest.approx((1 - ALPHA) * hard.item(), rel=1e-9)
    [same] = informed(objective, models, [batch], 4)
    assert same is batch


def test_alpha_of_one_leaves_the_datas_answer_out() -> None:
    objective = build("distillation", alpha=1.0)
    batch = collate([objective.encode(builders.conversations(1)[0], builders.codec())])
    assert set(objective.weights(batch)) == {"distillation"}


def test_the_last_answer_becomes_the_teachers() -> None:
    settings = {"kind": "sequence_distillation", "teacher": "builtin:nano", "temperature": 0.0}
    objective = kinds.build("objectives", kinds.config("objectives", settings))
    [talk] = builders.conversations(1, turns=2)
    assert objective.question(talk) == talk.turns[:3]
    again = objective.answered(talk, "so it is")
    assert isinstance(again, Conversation)
    assert again.turns == (*talk.turns[:3], Turn("assistant", "so it is"))
    codec = builders.codec()
    learned = objective.encode(again, codec).targets["lm"]["token"]
    assert codec.decode(learned.tolist()).strip() == "so it is"
    batch = collate([objective.encode(again, codec)])
    assert objective.weights(batch)["nll"] == len(learned)
    assert np.array_equal(batch.targets["lm"]["token"], learned)
    with pytest.raises(UserError, match="no assistant turn"):
        objective.encode(Conversation(origin(1), talk.turns[:1]), codec)
