"""In-batch negatives: by hand, as sentence-transformers has them, and of the whole step (law 3)."""

from __future__ import annotations

from typing import Any

import builders
import encoders
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import gap
from stand_in import origin, step
from torch import Tensor

from luthier.core import kinds
from luthier.core.records import Example, Pair, Record, SourceTarget
from luthier.methods.full import Config as Full
from luthier.methods.full import Method
from luthier.models.embedder import EmbeddingModel
from luthier.models.run_models import RunModels
from luthier.ops.contrastive import Step, ranking_loss


def build(**settings: Any) -> Any:
    return kinds.build("objectives", kinds.config("objectives", {"kind": "embedding", **settings}))


def pairs(count: int = 7) -> list[Record]:
    """Rows with no, one and two hard negatives."""
    said = builders.SENTENCES
    return [
        Pair(
            origin(i + 1), f"{i} of {said[i % 6][:11]}", f"{said[(i + 1) % 6]} {i}",
            tuple(f"{said[(i + 2 + n) % 6][: 20 + i]} not" for n in range(i % 3)),
        )
        for i in range(count)
    ]  # fmt: skip


def arranged(objective: Any, records: list[Record]) -> list[Example]:
    examples = [objective.encode(record, builders.codec()) for record in records]
    return list(objective.arrange(examples, np.random.default_rng(0)))


def models() -> RunModels:
    method = Method(Full())
    return RunModels(
        EmbeddingModel(method.prepare(encoders.embedding(dtype=torch.float64))), method
    )


def vectors(run: RunModels, example: Example) -> Tensor:
    """Each text of an example by itself, through transformers' own attention."""
    made = []
    base: Any = run.policy.module
    base.set_attn_implementation("sdpa")
    for segment in example.segments:
        made.append(base(input_ids=torch.tensor(segment.tokens)[None]).last_hidden_state[0].mean(0))
    return torch.stack(made)


def by_hand(run: RunModels, examples: list[Example], scale: float, symmetric: bool) -> Tensor:
    every = [F.normalize(vectors(run, example), dim=-1) for example in examples]
    corpus = torch.cat([v[1:] for v in every])
    own = np.cumsum([0, *(len(v) - 1 for v in every)])[:-1]
    anchors = torch.stack([v[0] for v in every])
    forward = F.cross_entropy(scale * anchors @ corpus.T, torch.tensor(own))
    if not symmetric:
        return forward
    back = F.cross_entropy(scale * corpus[own] @ anchors.T, torch.arange(len(every)))
    return (forward + back) / 2


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_and_its_gradient_are_the_papers(symmetric: bool) -> None:
    objective = build(symmetric=symmetric, scale=11.0).settled(pairs(), ())
    assert objective.config.negatives == 2
    run, examples = models(), arranged(objective, pairs())
    gradients, means = step(objective, run, [examples])
    run.policy.module.zero_grad()
    expected = by_hand(run, examples, 11.0, symmetric)
    expected.backward()  # type: ignore[no-untyped-call]
    assert means["embedding"] == pytest.approx(expected.item(), abs=1e-10)
    assert gap(gradients, builders.gradients(run.policy.module)) < 1e-9


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "cuts", [[[0, 1, 2], [3, 4, 5, 6]], [[6], [2, 0], [], [5, 3, 1, 4]], [[i] for i in range(7)]],
    ids=str,
)  # fmt: skip
def test_law_3_a_step_in_micro_batches_is_the_step(cuts: list[list[int]], symmetric: bool) -> None:
    objective = build(symmetric=symmetric).settled(pairs(), ())
    run, examples = models(), arranged(objective, pairs())
    whole = step(objective, run, [examples])
    divided = step(objective, run, [[examples[i] for i in cut] for cut in cuts])
    assert gap(whole[0], divided[0]) < 1e-10
    assert whole[1] == pytest.approx(divided[1], abs=1e-10)
    alone = [step(objective, run, [arranged(objective, [r])])[1]["embedding"] for r in pairs()]
    assert abs(np.mean(alone) - whole[1]["embedding"]) > 0.1, "examples are coupled"


def test_a_step_of_one_batch_embeds_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = build().settled(pairs(), ())
    run, examples = models(), arranged(objective, pairs())
    seen = []
    plain = EmbeddingModel.hidden
    monkeypatch.setattr(EmbeddingModel, "hidden", lambda *a: seen.append(1) or plain(*a))  # type: ignore[func-returns-value]
    step(objective, run, [examples])
    assert len(seen) == 1
    step(objective, run, [examples[:3], examples[3:]])
    assert len(seen) == 1 + 2 + 2


def laid(texts: list[int], anchors: list[int]) -> Step:
    torch.manual_seed(0)
    count = len(texts)
    return Step(
        torch.randn(count, 8, dtype=torch.float64),
        torch.randn(count, 1, 8, dtype=torch.float64),
        torch.ones(count, 1, dtype=torch.bool),
        torch.tensor(anchors),
        torch.tensor(texts)[:, None],
    )


@pytest.mark.parametrize(
    ("texts", "anchors"), [([5, 6, 5, 8], [1, 2, 3, 4]), ([5, 6, 7, 8], [1, 2, 1, 4])]
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_text_that_would_be_right_as_well_is_no_negative(
    texts: list[int], anchors: list[int], symmetric: bool
) -> None:
    """Rows 0 and 2 share a positive, or an anchor."""
    made = laid(texts, anchors)
    found = ranking_loss(made, torch.arange(4), scale=5.0, symmetric=symmetric)
    without = [0, 1, 3]
    fewer = Step(*(getattr(made, name)[without] for name in Step.__dataclass_fields__))
    expected = ranking_loss(fewer, torch.arange(3), scale=5.0, symmetric=symmetric)
    assert found[0].item() == pytest.approx(expected[0].item(), abs=1e-12)
    assert found[1].item() > expected[1].item()


def test_a_translation_is_a_pair_and_negatives_are_bounded() -> None:
    objective = build(negatives=1)
    codec = builders.codec()
    [one] = [objective.encode(SourceTarget(origin(1), "a house", "una casa"), codec)]
    assert [len(t["segment"]) for t in one.targets.values()] == [1, 1]
    many = objective.encode(Pair(origin(2), "a", "b", ("c", "d", "e")), codec)
    assert len(many.segments) == 3
    same = objective.encode(Pair(origin(3), "x", "b"), codec)
    texts = [e.targets["candidate"]["text"][0] for e in (many, same)]
    assert texts[0] == texts[1]


def test_similarity_may_be_a_product() -> None:
    made = laid([1, 2, 3], [1, 2, 3])
    scores = 2.0 * made.anchors @ made.candidates[:, 0].T
    expected = F.cross_entropy(scores, torch.arange(3), reduction="none")
    assert gap(ranking_loss(made, torch.arange(3), scale=2.0, cosine=False), expected) < 1e-12


def test_the_engines_loop_gives_the_figures_of_the_step(tmp_path: Any) -> None:
    from stand_in import train

    objective = build().settled(pairs(), ())
    seen = []
    for budget in (60, 10_000):
        run = models()
        examples = arranged(objective, pairs())
        seen.append(train(objective, run, examples, tmp_path / str(budget), budget=budget))
    for cut, whole in zip(*seen, strict=True):
        assert cut["embedding"] == pytest.approx(whole["embedding"], rel=1e-5)
    assert seen[0][-1]["embedding"] < seen[0][0]["embedding"]
