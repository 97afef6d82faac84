"""Objectives that learn which answer is better: against plain slow code, in every layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import answers
import builders
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stand_in import annotated, apart, models_of, nudge, step
from torch import Tensor

from luthier.core import kinds
from luthier.core.errors import DataError
from luthier.core.records import Example, Preference, Turn
from luthier.data.batching import collate
from luthier.data.length import fit
from luthier.models.language_model import CausalModel
from luthier.ops.preferences import pair_loss

Value = Callable[[Tensor, Tensor, Tensor], Tensor]


def logsig(x: Tensor) -> Tensor:
    """Of one over one plus e to the minus x, as it stands."""
    return torch.log(1 / (1 + torch.exp(-x)))


def odds(mean: Tensor) -> Tensor:
    chance = mean.exp()
    return torch.log(chance / (1 - chance))


#: Settings -> each pair's preference, from both answers' log-probabilities (of now, of step 0),
#: and the coefficient of the chosen one's likelihood.
BETA = 0.3
CASES: dict[str, tuple[dict[str, Any], Callable[..., Tensor], float]] = {
    "dpo": (
        {"beta": BETA, "sft": 0.5},
        lambda c, r, c0, r0: -logsig(BETA * ((c - c0).sum() - (r - r0).sum())),
        0.5,
    ),
    "dpo-smooth": (
        {"kind": "dpo", "beta": BETA, "label_smoothing": 0.1},
        lambda c, r, c0, r0: (
            -0.9 * logsig(BETA * ((c - c0).sum() - (r - r0).sum()))
            - 0.1 * logsig(-BETA * ((c - c0).sum() - (r - r0).sum()))
        ),
        0.0,
    ),
    "dpo-by-token": (
        {"kind": "dpo", "beta": BETA, "length_normalised": True},
        lambda c, r, c0, r0: -logsig(BETA * ((c - c0).mean() - (r - r0).mean())),
        0.0,
    ),
    "dpo-robust": (
        {"kind": "dpo", "beta": BETA, "loss": "robust", "label_smoothing": 0.2},
        lambda c, r, c0, r0: (
            (
                -0.8 * logsig(BETA * ((c - c0).sum() - (r - r0).sum()))
                + 0.2 * logsig(-BETA * ((c - c0).sum() - (r - r0).sum()))
            )
            / 0.6
        ),
        0.0,
    ),
    "dpo-hinge": (
        {"kind": "dpo", "beta": BETA, "loss": "hinge"},
        lambda c, r, c0, r0: torch.clamp(1 - BETA * ((c - c0).sum() - (r - r0).sum()), min=0),
        0.0,
    ),
    "dpo-ipo": (
        {"kind": "dpo", "beta": BETA, "loss": "ipo"},
        lambda c, r, c0, r0: ((c - c0).mean() - (r - r0).mean() - 1 / (2 * BETA)) ** 2,
        0.0,
    ),
    "orpo": (
        {"beta": BETA},
        lambda c, r, c0, r0: -BETA * logsig(odds(c.mean()) - odds(r.mean())),
        1.0,
    ),
    "simpo": (
        {"beta": 2.5, "gamma": 0.7},
        lambda c, r, c0, r0: -logsig(2.5 * (c.mean() - r.mean()) - 0.7),
        0.0,
    ),
    "cpo": (
        {"beta": BETA, "sft": 0.8},
        lambda c, r, c0, r0: -logsig(BETA * (c.sum() - r.sum())),
        0.8,
    ),
}


def made(case: str) -> Any:
    settings = {"kind": case, **CASES[case][0]}
    return answers.objective(**settings)


def encoded(objective: Any, records: list[Any]) -> list[Example]:
    return [objective.encode(record, builders.codec()) for record in records]


def ready(case: str, records: list[Any], method: str = "full") -> tuple[Any, Any, list[Example]]:
    """An objective, models that have moved since step 0, and examples with their columns."""
    objective, models = made(case), models_of(answers.speaker(), method)
    examples = encoded(objective, records)
    if hasattr(objective, "columns"):
        examples = annotated(objective, models, examples)
    nudge(models.policy.module, 0.05)
    return objective, models, examples


def by_hand(case: str, module: Any, start: Any, examples: list[Example]) -> dict[str, Tensor]:
    """The terms of a step from plain sequences."""
    _, preference, likelihood = CASES[case]
    costs, learned = [], []
    for example in examples:
        now = answers.plain_logprobs(module, example)
        with torch.no_grad():
            old = answers.plain_logprobs(start, example)
        several = [
            preference(now[i], now[j], old[i], old[j])
            for i in range(len(now))
            for j in range(i + 1, len(now))
        ]
        costs.append(torch.stack(several).mean())
        learned.append(now[0])
    terms = {"preference": torch.stack(costs).mean()}
    if likelihood:
        terms["nll"] = -likelihood * torch.cat(learned).mean()
    return terms


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_the_papers(case: str) -> None:
    objective, models, examples = ready(case, [*answers.pairs(), *answers.rankings()])
    gradients, means = step(objective, models, [examples])
    module, start = models.policy.module, answers.speaker()
    module.zero_grad(set_to_none=True)
    expected = by_hand(case, module, start, examples)
    sum(expected.values()).backward()  # type: ignore[union-attr]
    for name, value in expected.items():
        assert means[name] == pytest.approx(value.item(), abs=1e-9), name
    assert builders.gap(gradients, builders.gradients(module)) < 1e-9
    assert float(gradients["transformer.wte.weight"].abs().max()) > 1e-4


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cuts", [[[0, 1, 2, 3, 4], []], [[3], [0, 4], [1, 2]]], ids=str)
def test_micro_batches_change_nothing(case: str, cuts: list[list[int]]) -> None:
    objective, models, examples = ready(case, answers.pairs())
    whole = step(objective, models, [examples])
    divided = step(objective, models, [[examples[i] for i in cut] for cut in cuts])
    assert builders.gap(whole[0], divided[0]) < 1e-9
    assert whole[1] == pytest.approx(divided[1], abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_read_once_is_a_prompt_read_for_each_answer(case: str) -> None:
    objective, models, examples = ready(case, [*answers.pairs(3), *answers.rankings()])
    alone = [apart(example) for example in examples]
    assert sum(e.size for e in examples) < 0.8 * sum(e.size for e in alone)
    shared, single = (step(objective, models, [each]) for each in (examples, alone))
    assert builders.gap(shared[0], single[0]) < 1e-9
    assert shared[1] == pytest.approx(single[1], abs=1e-9)


@pytest.mark.parametrize("case", ["dpo", "orpo"])
def test_padded_rows_are_packed_ones(case: str) -> None:
    objective, models, examples = ready(case, [*answers.pairs(3), *answers.rankings()])
    found = []
    for layout in ("packed", "padded"):
        batch = collate(examples, layout=layout)  # type: ignore[arg-type]
        terms = objective.loss(models, batch)
        found.append(terms["preference"].item())
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_what_is_watched_is_what_the_answers_are_worth() -> None:
    objective, models, examples = ready("dpo", answers.pairs(3))
    _, means = step(objective, models, [examples])
    start, better, worse = answers.speaker(), [], []
    with torch.no_grad():
        for example in examples:
            now, old = (
                [p.sum() for p in answers.plain_logprobs(m, example)]
                for m in (models.policy.module, start)
            )
            better.append(float(BETA * (now[0] - old[0])))
            worse.append(float(BETA * (now[1] - old[1])))
    assert means["chosen_reward"] == pytest.approx(np.mean(better), abs=1e-9)
    assert means["rejected_reward"] == pytest.approx(np.mean(worse), abs=1e-9)
    assert means["reward_margin"] == pytest.approx(np.mean(better) - np.mean(worse), abs=1e-9)
    right = [b > w for b, w in zip(better, worse, strict=True)]
    assert means["reward_accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_at_step_0_nothing_is_preferred(method: str) -> None:
    objective, models = (
        made("dpo"),
        models_of(answers.speaker(attn_pdrop=0.3, resid_pdrop=0.3), method),
    )
    models.policy.module.eval()  # as the engine asks for columns
    examples = annotated(objective, models, encoded(objective, answers.pairs()))
    _, means = step(objective, models, [examples])
    assert means["preference"] == pytest.approx(math.log(2), abs=1e-12)
    assert means["reward_accuracy"] == 0.5
    assert means["reward_margin"] == pytest.approx(0, abs=1e-12)


def test_examples_are_a_prompt_with_its_answers() -> None:
    codec = builders.codec()
    [record] = answers.pairs(1)
    example = made("dpo").encode(record, codec)
    assert [segment.parent for segment in example.segments] == [None, 0, 0]
    assert example.segments[0].tokens.tolist() == codec.prompt(record.prompt)
    table = example.targets["lm"]
    for number, answer in enumerate((record.chosen, record.rejected)):
        mine = table["segment"] == number + 1
        learned = table["token"][mine].tolist()
        assert learned == example.segments[number + 1].tokens.tolist()
        assert codec.decode(learned) == answer[0].content
        assert learned[-1] in codec.end_tokens, "the end of turn is always learned"
        assert table["position"][mine][0] == len(example.segments[0].tokens) - 1
        assert set(table["place"][mine]) == {number}


def test_only_the_assistants_turns_of_a_longer_answer_are_learned() -> None:
    talk = (Turn("assistant", "a cat"), Turn("user", "and then?"), Turn("assistant", "it sat"))
    record = Preference(answers.origin(1), answers.asked(1), talk, answers.said("no"))
    codec = builders.codec()
    example = made("dpo").encode(record, codec)
    table = example.targets["lm"]
    learned = codec.decode(table["token"][table["segment"] == 1].tolist())
    assert "cat" in learned
    assert "it sat" in learned
    assert "then" not in learned
    assert "and then?" in codec.decode(example.segments[1].tokens.tolist())
    whole = [*codec.prompt(record.prompt), *example.segments[1].tokens]
    pieces = [t for p in codec.dialogue((*record.prompt, *talk)) for t in p.tokens]
    assert whole == pieces[: len(whole)]


def test_what_a_template_writes_after_an_answer_is_left_out() -> None:
    template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }} bye\n"
        "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    codec = builders.codec(template=template)
    talk = (Turn("assistant", "a cat"), Turn("user", "and then?"), Turn("assistant", "it sat"))
    record = Preference(answers.origin(1), answers.asked(1), talk, answers.said("no"))
    tail = [p for p in codec.dialogue((*record.prompt, *talk)) if not p.answer][-1]
    assert "bye" in codec.decode(tail.tokens)
    for segment in made("dpo").encode(record, codec).segments[1:]:
        assert segment.tokens[-1] == codec.tokenizer.eos_token_id


def test_an_answer_of_nothing_and_a_missing_prompt_are_refused() -> None:
    quiet = Preference(answers.origin(7), answers.asked(1), answers.said(" "), answers.said("b"))
    with pytest.raises(DataError, match="empty") as caught:
        made("dpo").encode(quiet, builders.codec())
    assert caught.value.faults[0].place == "made.jsonl:7"
    bare = Preference(answers.origin(8), (), answers.said("a"), answers.said("b"))
    with pytest.raises(DataError, match="no prompt"):
        made("dpo").encode(bare, builders.codec())


def test_a_cut_keeps_the_prompts_end_and_both_answers_whole() -> None:
    objective = made("dpo")
    [record] = answers.pairs(1)
    example = objective.encode(record, builders.codec())
    limit = example.depth() - 4
    [shorter], cut = fit(example, limit, objective.overlong)
    assert cut.tokens == 4
    assert cut.targets == 0
    assert shorter.segments[0].tokens.tolist() == example.segments[0].tokens[4:].tolist()
    for kept, was in zip(shorter.segments[1:], example.segments[1:], strict=True):
        assert kept.tokens.tolist() == was.tokens.tolist()
    assert shorter.targets["lm"]["token"].tolist() == example.targets["lm"]["token"].tolist()
    none, lost = fit(example, max(len(s.tokens) for s in example.segments[1:]) - 1, "left")
    assert (none, lost.dropped) == ([], 1), "an answer that does not fit is a pair that does not"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "ipo", "label_smoothing": 0.1}, "no meaning for ipo"),
        ({"loss": "robust"}, "without 'label_smoothing' is sigmoid"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "no meaning for hinge"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(kinds.BadConfigError, match=said):
        answers.objective("dpo", **settings)


# Thumbs.


def kto_by_hand(
    module: Any, start: Any, examples: list[Example], weights: tuple[float, float], own: bool
) -> Tensor:
    """``own``: the baseline is of the answers themselves."""
    above, far = [], []
    for example in examples:
        now = [p.sum() for p in answers.plain_logprobs(module, example)]
        with torch.no_grad():
            old = [p.sum() for p in answers.plain_logprobs(start, example)]
        above.append(now[0] - old[0])
        far.append((now[0] - old[0]) if own else (now[1] - old[1]))
    baseline = max(0.0, float(torch.stack(far).mean().detach()))
    costs = []
    for example, each in zip(examples, above, strict=True):
        if example.targets["answer"]["good"][0]:
            costs.append(weights[0] * (1 - torch.sigmoid(BETA * (each - baseline))))
        else:
            costs.append(weights[1] * (1 - torch.sigmoid(BETA * (baseline - each))))
    return torch.stack(costs).mean()


def thumbs(step_size: float = -2e-3, **settings: Any) -> tuple[Any, Any, list[Example]]:
    objective = answers.objective("kto", beta=BETA, **settings)
    models = models_of(answers.speaker())
    examples = encoded(objective, answers.thumbs())
    examples = annotated(objective, models, examples)
    policy, batch = models.policy, collate(examples)
    # A step towards the answers: they are likelier than at the start, the baseline is above 0.
    policy.nll(batch, policy.hidden(batch)).backward()
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter.add_(parameter.grad, alpha=step_size)  # type: ignore[arg-type]
    return objective, models, list(objective.arrange(examples, np.random.default_rng(3)))


@pytest.mark.parametrize("baseline", ["mismatched", "batch"])
@pytest.mark.parametrize("cuts", [[[0, 1, 2, 3, 4, 5]], [[3], [0, 5, 4], [], [1, 2]]], ids=str)
def test_thumbs_are_the_papers_whatever_the_cut(baseline: str, cuts: list[list[int]]) -> None:
    objective, models, examples = thumbs(
        baseline=baseline, desirable_weight=1.5, undesirable_weight=0.7
    )
    gradients, means = step(objective, models, [[examples[i] for i in cut] for cut in cuts])
    module = models.policy.module
    module.zero_grad(set_to_none=True)
    own = baseline == "batch"
    expected = kto_by_hand(module, answers.speaker(), examples, (1.5, 0.7), own)
    expected.backward()  # type: ignore[no-untyped-call]
    assert means["kto"] == pytest.approx(expected.item(), abs=1e-9)
    assert builders.gap(gradients, builders.gradients(module)) < 1e-9


def test_a_baseline_is_never_below_0() -> None:
    """After a step away from the answers, which are then less likely than at the start."""
    objective, models, examples = thumbs(2e-3)
    _, means = step(objective, models, [examples])
    module, start = models.policy.module, answers.speaker()
    with torch.no_grad():
        expected = kto_by_hand(module, start, examples, (1.0, 1.0), False)
        now, old = (answers.plain_logprobs(m, examples[0])[1].sum() for m in (module, start))
    assert float(now - old) < -0.1, "there was something to bound"
    assert means["kl"] == 0
    assert means["kto"] == pytest.approx(expected.item(), abs=1e-9)


def test_the_baseline_counts() -> None:
    """Otherwise the test above would not see one."""
    for baseline in ("mismatched", "batch"):
        objective, models, examples = thumbs(baseline=baseline)
        _, means = step(objective, models, [examples])
        assert means["kl"] > 0.1


def test_thumbs_at_step_0_cost_one_half() -> None:
    objective = answers.objective("kto")
    models = models_of(answers.speaker())
    examples = annotated(objective, models, encoded(objective, answers.thumbs()))
    examples = list(objective.arrange(examples, np.random.default_rng(0)))
    _, means = step(objective, models, [examples])
    assert means["kto"] == pytest.approx(0.5, abs=1e-12)
    assert means["kl"] == pytest.approx(0, abs=1e-12)


def test_another_rows_answer_stands_beside_its_own_and_never_outgrows_the_step() -> None:
    objective = answers.objective("kto")
    examples = encoded(objective, answers.thumbs())
    arranged = objective.arrange(examples, np.random.default_rng(5))
    again = objective.arrange(examples, np.random.default_rng(5))
    owns = [e.segments[1].tokens.tolist() for e in examples]
    for before, after, repeat in zip(examples, arranged, again, strict=True):
        own, other = (s.tokens.tolist() for s in after.segments[1:])
        assert own == before.segments[1].tokens.tolist()
        assert other != own
        assert any(said[: len(other)] == other for said in owns)
        assert other == repeat.segments[2].tokens.tolist()
        table = after.targets["lm"]
        assert table["token"][table["segment"] == 2].tolist() == other
    assert max(e.size for e in arranged) <= max(e.size for e in examples)
    assert max(e.depth() for e in arranged) <= max(e.depth() for e in examples)


def test_liked_and_disliked_are_watched_apart() -> None:
    objective, models, examples = thumbs()
    _, means = step(objective, models, [examples])
    start, rewards = answers.speaker(), []
    with torch.no_grad():
        for example in examples:
            now, old = (
                answers.plain_logprobs(m, example)[0].sum() for m in (models.policy.module, start)
            )
            rewards.append((float(BETA * (now - old)), example.targets["answer"]["good"][0]))
    for name, kind in (("liked_reward", 1), ("disliked_reward", 0)):
        mine = [value for value, good in rewards if good == kind]
        assert means[name] == pytest.approx(np.mean(mine), abs=1e-9)


def test_scores_are_what_is_watched() -> None:
    objective, models, examples = ready("dpo", answers.pairs(3))
    batch = collate(examples)
    with torch.no_grad():
        found = objective.scores(models, batch)
        terms = objective.loss(models, batch)
    assert found.shape == (6,)
    assert found[0::2].sum().item() == pytest.approx(terms["chosen_reward"].item())
    assert isinstance(models.policy, CausalModel)
    margin = (found[0::2] - found[1::2]) / BETA
    expected = pair_loss("sigmoid", margin, beta=BETA).sum()
    assert terms["preference"].item() == pytest.approx(expected.item())
    assert F.logsigmoid(found[0::2] - found[1::2]).sum().item() == pytest.approx(-expected.item())
